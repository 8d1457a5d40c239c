"""Description of the service: a self-contained page, and an OpenAPI document."""

from __future__ import annotations

import html
import json

from verifiers.verdict import JSON

CHOSEN: dict[str, JSON] = {"verifier": {"type": "string"}, "options": {"type": "object"}}
ROW: dict[str, JSON] = {
    "completion": {"type": "string"},
    "reference": {},
    "prompt": {"type": ["string", "null"]},
    "info": {"type": "object"},
}
SCHEMAS: dict[str, JSON] = {
    "GradeOne": {"type": "object", "required": ["verifier", "completion"], "properties": {**CHOSEN, **ROW}},
    "Row": {"type": "object", "required": ["completion"], "properties": ROW},
    "GradeBatch": {
        "type": "object",
        "required": ["verifier", "rows"],
        "properties": {**CHOSEN, "rows": {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}},
    },
    "CheckReference": {"type": "object", "required": ["verifier"], "properties": {**CHOSEN, "reference": {}}},
}
PATHS: dict[str, tuple[str, str, str]] = {
    "/v1/grade": ("post", "Grade one completion.", "GradeOne"),
    "/v1/grade_batch": ("post", "Grade completions of one verifier; verdicts in order.", "GradeBatch"),
    "/v1/check_reference": ("post", "Check a reference: what is wrong with it, or null.", "CheckReference"),
    "/v1/verifiers": ("get", "Verifiers served, with their options.", ""),
    "/metrics": ("get", "Prometheus metrics.", ""),
    "/health": ("get", "Status and load of the service. Needs no token.", ""),
    "/openapi.json": ("get", "This page in machine-readable form.", ""),
}
"""Path -> (method, description, schema of its body)."""


def openapi() -> JSON:
    """Return the description of the service as an OpenAPI document."""
    paths: dict[str, JSON] = {}
    for path, (method, about, schema) in PATHS.items():
        operation: dict[str, JSON] = {"summary": about, "responses": {"200": {"description": "JSON"}}}
        if schema:
            content: JSON = {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
            operation["requestBody"] = {"required": True, "content": content}
        paths[path] = {method: operation}
    about: JSON = {"title": "reasoner grading service", "version": "1"}
    components: JSON = {"schemas": SCHEMAS}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": components}


def docs() -> bytes:
    """Return the description of the service as an HTML page."""
    rows: list[str] = []
    for path, (method, about, schema) in PATHS.items():
        body = f"<pre>{html.escape(json.dumps(SCHEMAS[schema], indent=1))}</pre>" if schema else ""
        rows.append(f"<h2><code>{method.upper()} {path}</code></h2><p>{html.escape(about)}</p>{body}")
    title = "reasoner grading service"
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><h1>{title}</h1>'
        "<p>Send JSON as <code>Content-Type: application/json</code>; if the service has a token, send it as"
        " <code>Authorization: Bearer TOKEN</code>.</p>" + "".join(rows)
    ).encode()
