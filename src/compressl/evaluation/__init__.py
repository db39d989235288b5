"""What a representation keeps, measured."""

from compressl.evaluation.intervals import Estimate, bootstrap_mean
from compressl.evaluation.knn import knn_predict
from compressl.evaluation.linear import LinearProbe, fit, fit_best

__all__ = ["Estimate", "LinearProbe", "bootstrap_mean", "fit", "fit_best", "knn_predict"]
