"""The mathematics of measuring a representation, on features, labels and densities: tensors in, numbers out."""

from compressl.measures.intervals import Estimate, bootstrap_mean
from compressl.measures.knn import knn_predict
from compressl.measures.linear import LinearProbe, fit, fit_best

__all__ = ["Estimate", "LinearProbe", "bootstrap_mean", "fit", "fit_best", "knn_predict"]
