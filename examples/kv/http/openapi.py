"""The description of this interface.

Knows: paths, parameters, shapes. Must not know: what carries them out.

Invariants:
- It says what the server does: `tests/kv/test_http_described.py` holds one against the other.

Reference: OpenAPI 3.1.
"""

from __future__ import annotations

from typing import Any

import craft
from examples.kv.http import exposition, feed
from examples.kv.http.problems import KINDS, MEDIA_TYPE
from examples.kv.http.texts import POSITION_MAX
from examples.kv.store import Mode

Json = dict[str, Any]

ALWAYS = ("bad-request", "who-are-you", "wrong-host", "too-many-passwords", "overloaded")
"""Kinds of problems that any request may meet,"""
READS = ("not-allowed", "not-ready", "no-answer")
"""any read of data,"""
WRITES = (*READS, "too-large", "unsupported-media-type", "body-too-slow", "answer-lost")
"""and any write."""


def description() -> Json:
    """The document."""
    return {
        "openapi": "3.1.0",
        "info": {"title": "craft's key-value example", "version": craft.__version__, "description": ABOUT},
        "components": {"schemas": SCHEMAS, "securitySchemes": {"user": {"type": "http", "scheme": "basic"}}},
        "security": [{"user": []}, {}],
        "paths": {
            "/keys/{key}": {
                "parameters": [KEY],
                "get": GET_KEY,
                "put": PUT_KEY,
                "delete": DELETE_KEY,
            },
            "/keys": {"get": SCAN},
            "/transactions": {"post": TRANSACTION},
            "/changes": {"get": CHANGES},
            "/": {"get": PAGE},
            "/health": {"get": plain("health", "Does it take commands?", ref("Health"), "not-ready")},
            "/status": {"get": plain("status", "What the server knows of its cluster", {"type": "object"})},
            "/metrics": {"get": METRICS},
            "/openapi.json": {"get": plain("describe", "This document", {"type": "object"})},
        },
    }


ABOUT = (
    "Keys, transactions and the merged log of a replicated store. Every answer says how far the log is"
    " applied on the server that gave it (Craft-Position), and one that tells of keys how far it was in the"
    " state that it tells: follow the changes after that. A problem of a write says what became of it: its"
    " fate."
)


# -- parts -----------------------------------------------------------------------------------------


def ref(name: str) -> Json:
    """One of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


def parameter(name: str, about: str, schema: Json, *, where: str = "query") -> Json:
    """One that may be left out."""
    return {"name": name, "in": where, "description": about, "schema": schema}


def text(about: str, **headers: Json) -> Json:
    """An answer without a body."""
    return {"description": about, "headers": {"Craft-Position": AT, **headers}}


def answer(about: str, media_type: str, schema: Json, **headers: Json) -> Json:
    """An answer with a body."""
    return text(about, **headers) | {"content": {media_type: {"schema": schema}}}


def failures(*kinds: str) -> Json:
    """The answers of problems, by status."""
    found: dict[str, list[str]] = {}
    for kind in dict.fromkeys((*ALWAYS, *kinds)):
        found.setdefault(str(KINDS[kind].status), []).append(kind)
    return {
        status: answer(
            ". ".join(f"{KINDS[kind].title} ({kind})" for kind in kinds), MEDIA_TYPE, ref("Problem")
        )
        for status, kinds in found.items()
    }


def plain(name: str, about: str, schema: Json, *kinds: str) -> Json:
    """A GET without parameters that answers JSON."""
    return {
        "operationId": name,
        "summary": about,
        "responses": {"200": answer(about, "application/json", schema), **failures(*kinds)},
    }


POSITION: Json = {"type": "integer", "minimum": 0, "maximum": POSITION_MAX}
AT: Json = {"description": "how far the merged log is applied here", "schema": POSITION}
ETAG: Json = {"description": "the position of the key's last change, quoted", "schema": {"type": "string"}}
EXPIRES: Json = {"description": "when it expires, ms since the epoch", "schema": {"type": "integer"}}
LINK: Json = {"description": "the next page", "schema": {"type": "string"}}
LOCATION: Json = {"description": "the key", "schema": {"type": "string"}}
BYTES: Json = {"type": "string", "format": "binary"}

KEY: Json = {
    "name": "key",
    "in": "path",
    "required": True,
    "description": "the key, percent-encoded bytes",
    "schema": {"type": "string"},
}
CONSISTENCY = parameter(
    "consistency",
    "how fresh the answer is; session needs the header Craft-Position",
    {"type": "string", "enum": [mode.value for mode in Mode], "default": "linearizable"},
)
SEEN = parameter(
    "Craft-Position",
    "of an earlier answer: with consistency=session the read sees at least all up to there",
    {"type": "string", "pattern": "^[0-9]{1,18}$"},
    where="header",
)
IF_MATCH = parameter("If-Match", "a tag, or *", {"type": "string"}, where="header")
IF_NONE_MATCH = parameter("If-None-Match", "*; of a GET also tags", {"type": "string"}, where="header")

SCHEMAS: Json = {
    "Bytes": {
        "description": "UTF-8 as it stands, other bytes in base64",
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {"base64": {"type": "string", "format": "byte"}},
                "required": ["base64"],
                "additionalProperties": False,
            },
        ],
    },
    "Problem": {
        "type": "object",
        "properties": {
            "type": {"type": "string", "enum": [f"urn:kv:{kind}" for kind in KINDS]},
            "title": {"type": "string"},
            "status": {"type": "integer"},
            "detail": {"type": "string"},
            "fate": {
                "description": "what became of the write",
                "type": "string",
                "enum": ["rejected", "unknown", "applied"],
            },
            "version": POSITION,
            "retained": {"description": "one may follow after this position", **POSITION},
        },
        "required": ["type", "title", "status", "detail"],
    },
    "Page": {
        "type": "object",
        "properties": {
            "keys": {
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {
                        "key": ref("Bytes"),
                        "version": POSITION,
                        "type": {"type": "string", "enum": ["string", "hash"]},
                        "expires_at_ms": {"type": "integer"},
                        "value": ref("Bytes"),
                    },
                    "required": ["key", "version", "type"],
                },
            },
            "next": {"description": "where the next page is; without it this is the last", "type": "string"},
        },
        "required": ["keys"],
    },
    "Transaction": {
        "type": "object",
        "properties": {
            "commands": {
                "type": "array",
                "minItems": 1,
                "items": {"type": "array", "minItems": 1, "items": ref("Bytes")},
            },
            "watch": {
                "description": "nothing is run unless these keys have these versions",
                "type": "array",
                "items": {
                    "type": "object",
                    "properties": {"key": ref("Bytes"), "version": POSITION},
                    "required": ["key", "version"],
                    "additionalProperties": False,
                },
            },
        },
        "required": ["commands"],
        "additionalProperties": False,
    },
    "Replies": {
        "type": "object",
        "properties": {
            "replies": {"description": 'one a command; {"error": …}, {"map": [[k, v], …]}', "type": "array"},
            "position": POSITION,
        },
        "required": ["replies", "position"],
    },
    "Health": {"type": "object", "properties": {"ready": {"const": True}}, "required": ["ready"]},
}


# -- operations ------------------------------------------------------------------------------------

GET_KEY: Json = {
    "operationId": "getKey",
    "summary": "What a key holds",
    "parameters": [CONSISTENCY, SEEN, IF_MATCH, IF_NONE_MATCH],
    "responses": {
        "200": answer(
            "its value", "application/octet-stream", BYTES, **{"ETag": ETAG, "Craft-Expires-At-Ms": EXPIRES}
        ),
        "304": text("it has not changed", ETag=ETAG),
        **failures(*READS, "no-such-key", "wrong-type", "condition-failed"),
    },
}
PUT_KEY: Json = {
    "operationId": "putKey",
    "summary": "Let a key hold a value, whatever it held, if its conditions hold",
    "parameters": [
        parameter(
            "ttl_ms",
            "it expires after so long; without it never",
            {"type": "integer", "minimum": 1, "maximum": 10**15},
        ),
        IF_MATCH,
        IF_NONE_MATCH,
    ],
    "requestBody": {"required": True, "content": {"application/octet-stream": {"schema": BYTES}}},
    "responses": {
        "201": text("it was absent", ETag=ETAG, Location=LOCATION),
        "204": text("it held something else", ETag=ETAG),
        **failures(*WRITES, "refused", "condition-failed"),
    },
}
DELETE_KEY: Json = {
    "operationId": "deleteKey",
    "summary": "Remove a key, if its condition holds",
    "parameters": [IF_MATCH],
    "responses": {"204": text("it is gone"), **failures(*WRITES, "no-such-key", "condition-failed")},
}
SCAN: Json = {
    "operationId": "listKeys",
    "summary": "Keys with a prefix, in the order of their bytes, a page at a time",
    "parameters": [
        parameter("prefix", "only keys that begin so", {"type": "string"}),
        parameter("after", "only keys beyond this one", {"type": "string"}),
        parameter(
            "limit", "keys of a page, at most", {"type": "integer", "minimum": 1, "maximum": POSITION_MAX}
        ),
        parameter(
            "values",
            "with the values of strings, but of those larger than a page",
            {"type": "boolean", "default": False},
        ),
        CONSISTENCY,
        SEEN,
    ],
    "responses": {"200": answer("a page", "application/json", ref("Page"), Link=LINK), **failures(*READS)},
}
TRANSACTION: Json = {
    "operationId": "transact",
    "summary": "Commands that run as one, at one position of the merged log",
    "parameters": [CONSISTENCY, SEEN],
    "requestBody": {"required": True, "content": {"application/json": {"schema": ref("Transaction")}}},
    "responses": {
        "200": answer("the replies", "application/json", ref("Replies")),
        **failures(*WRITES, "refused", "condition-failed"),
    },
}
CHANGES: Json = {
    "operationId": "followChanges",
    "summary": "The merged log, from any position that is kept, as server-sent events",
    "parameters": [
        parameter("after", "the position after which to begin; without it, now", POSITION),
        parameter("prefix", "only changes of keys that begin so", {"type": "string"}),
        parameter(
            "Last-Event-ID",
            "as after, and stronger",
            {"type": "string", "pattern": "^[0-9]{1,18}$"},
            where="header",
        ),
    ],
    "responses": {
        "200": answer("events", feed.MEDIA_TYPE, {"type": "string"}),
        **failures(
            "not-allowed", "not-ready", "compacted", "too-large", "unsupported-media-type", "body-too-slow"
        ),
    },
}
METRICS: Json = {
    "operationId": "metrics",
    "summary": "For Prometheus",
    "responses": {
        "200": answer("its text format", exposition.MEDIA_TYPE.partition(";")[0], {"type": "string"}),
        **failures(),
    },
}
PAGE: Json = {
    "operationId": "page",
    "summary": "A live view of the cluster, for browsers",
    "responses": {"200": answer("the page", "text/html", {"type": "string"}), **failures()},
}
