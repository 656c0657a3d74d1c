"""One self-contained HTML page that tells a run, or a comparison, to somebody who has never seen the project."""

from sol_learner.report.page import report_page, write_report

__all__ = ["report_page", "write_report"]
