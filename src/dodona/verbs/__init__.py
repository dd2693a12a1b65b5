"""What each verb of the command line does with its parsed words, a function each: words -> exit code.

Heavy packages are imported inside the functions, so that ``dodona list`` stays instant.
Source: ours.  Not here: the words (cli.py).
"""

from dodona.verbs.bench import run_benchmarks
from dodona.verbs.checks import check_methods
from dodona.verbs.diagnose import diagnose_values
from dodona.verbs.facts import audit_environment, list_methods
from dodona.verbs.recipes import report_runs, resume_run, run_recipe
from dodona.verbs.verify import verify_loss

VERBS = {
    "list": list_methods,
    "run": run_recipe,
    "check": check_methods,
    "audit": audit_environment,
    "diagnose": diagnose_values,
    "verify": verify_loss,
    "resume": resume_run,
    "report": report_runs,
    "bench": run_benchmarks,
}
