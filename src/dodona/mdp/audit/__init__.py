"""The audit of a tabular Gymnasium environment: ``audit(env_id) -> AuditReport``."""

from dodona.mdp.audit.examine import audit
from dodona.mdp.audit.report import AuditReport

__all__ = ["AuditReport", "audit"]
