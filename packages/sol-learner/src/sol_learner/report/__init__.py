"""A self-contained HTML report of a run or a comparison, for readers who are new to the project."""

from sol_learner.report.page import report_page, write_report

__all__ = ["report_page", "write_report"]
