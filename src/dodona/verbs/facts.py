"""Verbs that say what is known without learning anything: list, audit.

Source: ours.  Not here: the catalog (catalog.py), the audit itself (mdp/audit).
"""

import argparse

from dodona.catalog import METHODS
from dodona.verbs.printing import print_json, print_table, say


def list_methods(arguments: argparse.Namespace) -> int:
    if arguments.json:
        keys = ("name", "family", "title", "source", "code", "recipes", "built")
        print_json([{k: getattr(m, k) for k in keys} for m in METHODS])
        return 0
    shade = {"full": "", "objectives": "", "no": "dim"}
    print_table(
        f"the {len(METHODS)} methods of dodona",
        ("method", "what", "source", "code", "oracles", "recipes", "built"),
        [
            [
                (text, shade[m.built])
                for text in (
                    m.name,
                    m.title,
                    m.source,
                    m.code.removeprefix("dodona."),
                    m.check.removeprefix("dodona."),
                    " ".join(m.recipes),
                    m.built,
                )
            ]
            for m in METHODS
        ],
    )
    return 0


def audit_environment(arguments: argparse.Namespace) -> int:
    from dodona.mdp.audit import audit

    report = audit(arguments.env_id, gamma=arguments.gamma)
    if arguments.out is not None:
        from dodona.audit_page import write_page

        say(f"written: {write_page(report, arguments.out, command=arguments.command)}")
    if arguments.json:
        print_json(report.to_json())
    else:
        print(report.text())
    return 0
