"""The audit: what is in a data set, and what is wrong with it, before months of work rest on it."""

from eqpot.data.audit.audit import audit_frames
from eqpot.data.audit.files import audit_files
from eqpot.data.audit.findings import Finding
from eqpot.data.audit.result import Audit

__all__ = ["Audit", "Finding", "audit_files", "audit_frames"]
