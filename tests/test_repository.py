"""Files that no code reads: whose methods these are, and what is told to others."""

import configparser

import yaml

from tests.imports import ROOT


def test_both_papers_are_named():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    papers = {paper["identifiers"][0]["value"]: paper for paper in citation["references"]}
    assert papers["arXiv:2412.10493"]["title"].startswith("AlignGuard: Scalable Safety Alignment")
    assert papers["arXiv:2508.01151"]["title"].startswith("Personalized Safety Alignment")
    assert all(paper["authors"] and paper["year"] == 2025 for paper in papers.values())
    assert citation["cff-version"] and citation["title"] and citation["authors"]


def test_dvc_reports_to_nobody():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    assert config.getboolean("core", "analytics") is False
