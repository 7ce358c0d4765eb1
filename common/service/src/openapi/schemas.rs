//! The JSON that travels, as schemas.

use serde_json::{Value, json};

use crate::error::ErrorCode;

/// Every schema by name.
pub(super) fn all() -> Value {
    json!({
        "Error": error(),
        "Version": object(&["program", "role", "version"], json!({
            "program": text("reader-node"),
            "role": text("reader"),
            "version": text("0.1.0"),
        })),
        "Key": key(),
        "Mutation": mutation(),
        "Event": event(),
        "Position": object(&["seq", "epoch", "position"], json!({
            "seq": whole("sequence number"),
            "epoch": whole("epoch of the writer that accepted it"),
            "position": text("<epoch>.<seq>, accepted as min_seq"),
        })),
        "BatchAnswer": object(&["first_seq", "last_seq", "count", "epoch", "position"], json!({
            "first_seq": whole("sequence number of the first mutation"),
            "last_seq": whole("sequence number of the last one"),
            "count": whole("number of mutations"),
            "epoch": whole("epoch of the writer that accepted them"),
            "position": text("<epoch>.<last_seq>, accepted as min_seq"),
            "key": text("key of a single event"),
            "key_b64": text("the same where it is not UTF-8"),
        })),
        "IngestAnswer": object(&[], json!({
            "committed_lines": whole("lines committed so far"),
            "last_seq": whole("sequence number of the last of them"),
            "done": { "type": "boolean", "description": "true in the last line when all is committed" },
            "error": { "type": "object", "description": "in the last line when a line is bad" },
            "line": whole("the bad line: all before it are committed, none after"),
        })),
        "Row": row(),
        "Change": change(),
        "ChangesPage": object(&["changes", "next", "head", "caught_up"], json!({
            "changes": { "type": "array", "items": { "$ref": "#/components/schemas/Change" } },
            "next": text("cursor that continues after this page"),
            "head": whole("sequence number of the newest change"),
            "caught_up": { "type": "boolean" },
        })),
        "Scan": scan(),
        "SnapshotRequest": snapshot_request(),
        "Snapshot": object(&["name", "seq", "position", "created", "expires", "holds_log"], json!({
            "name": text("its name"),
            "seq": whole("it holds every mutation up to this one"),
            "position": text("<epoch>.<seq>, accepted as min_seq"),
            "created": text("when it was taken, RFC 3339: its reads judge expiry at this instant"),
            "expires": { "type": ["string", "null"], "description": "some time after this it ends by itself" },
            "holds_log": { "type": "boolean", "description": "whether the log after it is kept for it too" },
        })),
        "Snapshots": object(&["snapshots"], json!({
            "snapshots": { "type": "array", "items": { "$ref": "#/components/schemas/Snapshot" } },
        })),
        "GroupRequest": strict(json!({
            "start": {
                "type": ["string", "null"],
                "description": "earliest, latest (default), a cursor, seq:<n> or time:<RFC 3339>",
            },
            "max_lag": max_lag("how far behind it may be and still hold the log; what is absent, the settings say"),
        })),
        "Group": object(&["group", "cursor", "lag", "max_lag", "expired"], json!({
            "group": text("its name"),
            "cursor": text("everything up to here is consumed"),
            "lag": object(&["records", "bytes", "seconds"], json!({
                "records": whole("not consumed yet"),
                "bytes": whole("stored bytes of the log objects that hold them"),
                "seconds": { "type": "number", "description": "since the oldest of those objects ended" },
            })),
            "max_lag": max_lag("null: as the compactor's settings say"),
            "expired": { "type": "boolean", "description": "whether log it has not consumed is gone" },
            "created": { "type": "boolean", "description": "in the answer to PUT: whether it is new" },
        })),
        "Groups": object(&["groups", "head"], json!({
            "groups": { "type": "array", "items": { "$ref": "#/components/schemas/Group" } },
            "head": whole("newest sequence number known here"),
        })),
        "GroupCommit": required(&["cursor"], strict(json!({
            "cursor": text("the last change consumed"),
            "rewind": { "type": "boolean", "description": "set the group back, or on, to this cursor" },
        }))),
        "GroupCommitted": object(&["group", "cursor", "moved"], json!({
            "group": text("its name"),
            "cursor": text("what is stored"),
            "moved": { "type": "boolean", "description": "false: the group was further on, and stays there" },
        })),
        "Job": object(&["job"], json!({ "job": text("id of the job") })),
        "DefaultTtl": object(&["ttl"], json!({
            "ttl": { "type": ["string", "null"], "description": "30d; null: for ever" },
        })),
        "SetDefaultTtl": default_ttl(),
        "SetMode": strict(mode_members()),
        "Mode": mode(),
    })
}

fn max_lag(description: &str) -> Value {
    let mut schema = strict(json!({
        "records": { "type": ["integer", "null"] },
        "bytes": { "type": ["integer", "null"] },
        "seconds": { "type": ["number", "string", "null"], "description": "whole seconds or \"1h\"" },
    }));
    schema["type"] = json!(["object", "null"]);
    schema["description"] = json!(description);
    schema
}

fn required(names: &[&str], mut schema: Value) -> Value {
    schema["required"] = json!(names);
    schema
}

fn default_ttl() -> Value {
    let mut schema = strict(json!({
        "ttl": { "type": ["string", "integer", "null"], "description": "\"30d\" or whole seconds; null: for ever" },
    }));
    schema["required"] = json!(["ttl"]);
    schema
}

fn mode_members() -> Value {
    json!({
        "mode": { "type": "string", "enum": ["merge", "fifo", "time_window"] },
        "policy": { "type": ["string", "null"], "description": "of merge: tiered (default) or leveled" },
        "retention": { "type": ["string", "null"], "description": "of fifo and time_window: how long rows live, 7d" },
        "retention_count": {
            "type": ["integer", "null"],
            "description": "newest tables kept in any case; a tenth of it, at least one, is windows kept",
        },
        "segment": { "type": ["string", "null"], "description": "of time_window: length of a window, 1h" },
    })
}

fn mode() -> Value {
    let mut members = mode_members();
    let amount = |what: &str| {
        let counts =
            json!({ "tables": whole("tables"), "rows": whole("rows"), "bytes": whole("their bytes") });
        json!({ "type": "object", "description": what, "properties": counts })
    };
    members["changed"] = json!({ "type": "boolean", "description": "whether this request changed the mode" });
    members["over"] = amount("tables whose retention has ended: they go with the next pass");
    members["all"] = amount("everything there is");
    members["next"] = json!({ "type": ["string", "null"], "description": "when the next table is over" });
    members["statement"] = json!({ "type": "array", "items": { "type": "string" } });
    object(&["mode", "changed", "over", "all", "statement"], members)
}

fn error() -> Value {
    let codes: Vec<&str> = ErrorCode::ALL.iter().map(|c| c.as_str()).collect();
    let inner = json!({
        "type": "object",
        "required": ["code", "message", "retryable"],
        "properties": {
            "code": { "type": "string", "enum": codes },
            "message": { "type": "string" },
            "retryable": {
                "type": "boolean",
                "description": "True only where repeating cannot apply a mutation twice.",
            },
            "line": whole("the line or frame of the request at fault, from 1"),
        },
        "additionalProperties": true,
    });
    object(&["error"], json!({ "error": inner }))
}

fn key() -> Value {
    strict(json!({ "key": text("the key, where it is UTF-8"), "key_b64": text("the key in base64") }))
}

fn mutation() -> Value {
    let mut schema = strict(json!({
        "op": { "type": "string", "enum": ["put", "delete"] },
        "key": text("the key, where it is UTF-8"),
        "key_b64": text("the key in base64"),
        "value": text("the value, where it is UTF-8"),
        "value_b64": text("the value in base64"),
        "ttl": ttl(),
    }));
    schema["required"] = json!(["op"]);
    schema
}

fn event() -> Value {
    strict(json!({
        "value": text("the value, where it is UTF-8"),
        "value_b64": text("the value in base64"),
        "ttl": ttl(),
    }))
}

fn snapshot_request() -> Value {
    let mut schema = strict(json!({
        "name": text("1 to 128 of [A-Za-z0-9._-], beginning with a letter or a digit"),
        "ttl": ttl(),
        "holds_log": { "type": "boolean", "description": "keep the log after it too" },
    }));
    schema["required"] = json!(["name"]);
    schema
}

fn scan() -> Value {
    strict(json!({
        "prefix": text("keys that begin with this"),
        "prefix_b64": text("the same in base64"),
        "start": text("first key of the range"),
        "start_b64": text("the same in base64"),
        "end": text("first key beyond the range"),
        "end_b64": text("the same in base64"),
        "limit": whole("rows of one page"),
        "reverse": { "type": "boolean" },
        "keys_only": { "type": "boolean" },
        "page": text("token of the next page"),
        "consistent": { "type": "boolean" },
        "min_seq": { "type": ["integer", "string"] },
        "wait": { "type": ["integer", "string"] },
        "snapshot": text("name of the snapshot to read"),
        "encoding": text("b64 forces the _b64 forms"),
        "format": text("ndjson or frames"),
    }))
}

fn row() -> Value {
    object(&[], row_members())
}

fn change() -> Value {
    let mut members = row_members();
    members["op"] = json!({ "type": "string", "enum": ["put", "delete"] });
    members["cursor"] = text("position after this change");
    object(&["op", "seq"], members)
}

fn row_members() -> Value {
    json!({
        "key": text("the key, where it is UTF-8"),
        "key_b64": text("the key in base64"),
        "value": text("the value, where it is UTF-8"),
        "value_b64": text("the value in base64"),
        "value_len": whole("length of a value above 8 MiB, in its place: a reader has it at /v1/kv/{key}, a tailer at /v1/value"),
        "seq": whole("sequence number"),
        "time": { "type": "string", "format": "date-time" },
        "expires": { "type": ["string", "null"], "format": "date-time" },
        "found": { "type": "boolean", "description": "false in a multi-get's answer for an absent key" },
        "next_page": { "type": ["string", "null"], "description": "in a scan's trailer" },
        "view_seq": whole("in a trailer: sequence number of the view that was read"),
    })
}

fn object(required: &[&str], properties: Value) -> Value {
    let mut schema = json!({ "type": "object", "properties": properties });
    if !required.is_empty() {
        schema["required"] = json!(required);
    }
    schema
}

fn strict(properties: Value) -> Value {
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn text(description: &str) -> Value {
    json!({ "type": "string", "description": description })
}

fn whole(description: &str) -> Value {
    json!({ "type": "integer", "description": description })
}

fn ttl() -> Value {
    json!({ "type": ["string", "integer"], "description": "\"30s\" or whole seconds, above zero; \"none\": for ever, whatever the default" })
}
