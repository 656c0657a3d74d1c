"""Learned baselines: an LSTM optimizer (L2LGD2) and a formula distilled from it (Symbolic L2O)."""

from sol_learner.baselines.distillation import Distilled, DistilSettings, distil, regress
from sol_learner.baselines.lstm_learning import LSTM_LR, LSTM_SETTINGS, learn_lstm, lstm_config

__all__ = ["LSTM_LR", "LSTM_SETTINGS", "DistilSettings", "Distilled", "distil", "learn_lstm", "lstm_config", "regress"]
