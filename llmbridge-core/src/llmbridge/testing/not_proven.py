"""Test outcome "not proven": neither passed nor skipped, for tests that could not check anything."""

from __future__ import annotations

import pytest

PROPERTY = "not_proven"
_PLUGIN_NAME = "llmbridge-not-proven"


def not_proven(request: pytest.FixtureRequest, why: str) -> None:
    """Mark the running test as not proven in the summary and the reports of the run."""
    plugins = request.config.pluginmanager
    if not plugins.has_plugin(_PLUGIN_NAME):
        plugins.register(_NotProven(), _PLUGIN_NAME)
    request.node.user_properties.append((PROPERTY, why))


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    return next((str(value) for name, value in getattr(report, "user_properties", ()) if name == PROPERTY), None)


class _NotProven:
    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(
        self, report: pytest.TestReport | pytest.CollectReport
    ) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
        if report.when == "call" and report.passed and _reason(report):
            return "not proven", "n", ("NOT PROVEN", {"yellow": True})
        return None

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        terminalreporter.section("not proven", yellow=True)
        for report in terminalreporter.stats.get("not proven", ()):
            terminalreporter.line(f"{report.nodeid}: {_reason(report)}")
