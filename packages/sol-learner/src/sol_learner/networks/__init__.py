"""Networks that compute updates: EQL and LSTM, as eager tensors or compiled."""
