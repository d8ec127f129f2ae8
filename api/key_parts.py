"""What keys, their limits, their use and the audit log are looked up in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from experts_registry.audit import AuditLog
    from experts_registry.key_usage import UsageLedger
    from experts_registry.keys import KeyStore
    from orchestrator.admission.gate import Gate
    from orchestrator.admission.ports import Counters


@dataclass(frozen=True, slots=True)
class KeyParts:
    """One process's."""

    store: KeyStore
    usage: UsageLedger
    audit: AuditLog
    counters: Counters
    gate: Gate
