"""Validate an RO-Crate without network: `.venv-metadata/bin/python validate.py FOLDER SEVERITY`; prints its faults.

roc-validator carries its profiles, but fetches the JSON-LD context that a crate names. rocrate 0.15 carries this one,
and so the script puts it into the cache from which the validator answers offline.
"""

import sys
import tempfile
from importlib.resources import files
from pathlib import Path

from requests_cache import CachedRequest, CachedResponse, CachedSession
from rocrate_validator.models import Severity, ValidationSettings
from rocrate_validator.services import validate

CONTEXT = "https://w3id.org/ro/crate/1.1/context"


def remember_context(cache: Path) -> None:
    """Put the context of RO-Crate 1.1 into the cache of HTTP answers."""
    request = CachedRequest(method="GET", url=CONTEXT)
    content = files("rocrate").joinpath("data/ro-crate.jsonld").read_bytes()
    assert CONTEXT.encode() in content[:200], "another rocrate carries another context"
    headers = {"Content-Type": "application/ld+json"}
    answer = CachedResponse(status_code=200, url=CONTEXT, content=content, headers=headers, request=request)
    CachedSession(cache_name=str(cache), backend="sqlite").cache.save_response(answer)


def main(crate: str, severity: str) -> None:
    """Print each fault of the crate at ``severity`` or worse in a line."""
    with tempfile.TemporaryDirectory() as folder:
        cache = Path(folder) / "http"
        remember_context(cache)
        settings = ValidationSettings(
            rocrate_uri=crate,
            profile_identifier="workflow-run-crate-0.5",
            requirement_severity=Severity[severity],
            skip_availability_check=True,
            offline=True,
            cache_path=str(cache),
        )
        result = validate(settings)
        for issue in result.get_issues():
            print(f"{issue.check.identifier} {issue.severity.name}: {issue.violatingEntity}: {issue.message}")
        print(f"{len(result.executed_checks)} checks")


if __name__ == "__main__":
    main(*sys.argv[1:])
