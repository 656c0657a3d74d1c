"""Networks that compute updates: EQL and LSTM, as eager tensors or compiled."""

from sol_learner.networks.base import KERNELS, NetworkRunner, State, UpdateNetwork
from sol_learner.networks.eql import FEATURES, UNITS, NetworkOptimizer, SymbolicNetwork
from sol_learner.networks.lstm import LSTMNetwork
from sol_learner.networks.trained_lstm import LSTM_FILE, LSTM_WEIGHTS, LSTMOptimizer, TrainedLSTM

__all__ = [
    "FEATURES",
    "KERNELS",
    "LSTM_FILE",
    "LSTM_WEIGHTS",
    "UNITS",
    "LSTMNetwork",
    "LSTMOptimizer",
    "NetworkOptimizer",
    "NetworkRunner",
    "State",
    "SymbolicNetwork",
    "TrainedLSTM",
    "UpdateNetwork",
]
