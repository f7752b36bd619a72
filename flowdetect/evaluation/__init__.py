"""Evaluation of scores: metrics with intervals, reports on many scorers and sets, and plots."""

from flowdetect._ctrl_c import whole_imports

with whole_imports():
    from flowdetect.evaluation.analysis import SecondOrderGap, second_order_gap
    from flowdetect.evaluation.area_plots import plot_auroc_intervals, plot_roc
    from flowdetect.evaluation.combined import CombinedReport, combine
    from flowdetect.evaluation.images import plot_image_grid, plot_pixel_likelihood
    from flowdetect.evaluation.intervals import auroc_interval
    from flowdetect.evaluation.metrics import aupr_in, aupr_out, auroc, bootstrap_interval, fpr_at_95_tpr
    from flowdetect.evaluation.ood import OODReport, ood_report
    from flowdetect.evaluation.plots import plot_score_histograms, plot_sit_classes, plot_sit_shifts
    from flowdetect.evaluation.sit import sit_report
    from flowdetect.evaluation.sit_results import SITReport

__all__ = [
    "CombinedReport",
    "OODReport",
    "SITReport",
    "SecondOrderGap",
    "aupr_in",
    "aupr_out",
    "auroc",
    "auroc_interval",
    "bootstrap_interval",
    "combine",
    "fpr_at_95_tpr",
    "ood_report",
    "plot_auroc_intervals",
    "plot_image_grid",
    "plot_pixel_likelihood",
    "plot_roc",
    "plot_score_histograms",
    "plot_sit_classes",
    "plot_sit_shifts",
    "second_order_gap",
    "sit_report",
]
