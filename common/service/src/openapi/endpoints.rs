//! The table of endpoints that exist in this version.

/// One method of one path.
pub(super) struct Endpoint {
    /// Roles that serve it; empty means all of them.
    pub(super) roles: &'static [&'static str],
    pub(super) method: &'static str,
    pub(super) path: &'static str,
    pub(super) summary: &'static str,
    pub(super) params: &'static [Param],
    /// Media types of the request's body.
    pub(super) body: &'static [&'static str],
    /// Status of a good answer.
    pub(super) status: u16,
    pub(super) answer: &'static str,
    /// Media types of a good answer.
    pub(super) answers: &'static [&'static str],
}

/// One query parameter.
pub(super) struct Param {
    pub(super) name: &'static str,
    /// Its JSON schema type.
    pub(super) kind: &'static str,
    pub(super) what: &'static str,
}

const fn text(name: &'static str, what: &'static str) -> Param {
    Param { name, kind: "string", what }
}

const fn number(name: &'static str, what: &'static str) -> Param {
    Param { name, kind: "integer", what }
}

const fn flag(name: &'static str, what: &'static str) -> Param {
    Param { name, kind: "boolean", what }
}

const JSON: &[&str] = &["application/json"];
const ANY: &[&str] = &["application/octet-stream"];
const BULK: &[&str] = &["application/x-ndjson", "application/vnd.isle.frames"];
const TEXT: &[&str] = &["text/plain"];

const ACK: Param = text("ack", "bucket (default), disk or memory: what must hold before the answer");
const TTL: Param = text("ttl", "time to live: 30s, or whole seconds");
const KEY: Param = text("key_b64", "the key in base64, with the path /v1/kv");
const MIN_SEQ: Param = text("min_seq", "a sequence number or position the view must have reached");
const WAIT: Param = text("wait", "longest wait for min_seq, default 10s, at most 60s");
const SNAPSHOT: Param = text("snapshot", "name of the snapshot to read");
const ENCODING: Param = text("encoding", "b64 forces the _b64 forms");
const FORMAT: Param = text("format", "ndjson or frames; beats Accept");
const POSITION: &str = "Where the mutation stands: seq, epoch, position";

/// Every endpoint of every program.
pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint {
        roles: &[],
        method: "GET",
        path: "/livez",
        summary: "The process loop is alive",
        params: &[],
        body: &[],
        status: 200,
        answer: "Alive",
        answers: TEXT,
    },
    Endpoint {
        roles: &[],
        method: "GET",
        path: "/readyz",
        summary: "The program serves; 503 with reasons when it does not",
        params: &[flag("verbose", "answer JSON: role, view, lease, store and coordination health, lag")],
        body: &[],
        status: 200,
        answer: "Ready, with what is degraded",
        answers: &["text/plain", "application/json"],
    },
    Endpoint {
        roles: &[],
        method: "GET",
        path: "/metrics",
        summary: "Metrics",
        params: &[],
        body: &[],
        status: 200,
        answer: "OpenMetrics text",
        answers: &["application/openmetrics-text"],
    },
    Endpoint {
        roles: &[],
        method: "GET",
        path: "/version",
        summary: "Program, role and version",
        params: &[],
        body: &[],
        status: 200,
        answer: "Program, role and version",
        answers: JSON,
    },
    Endpoint {
        roles: &[],
        method: "GET",
        path: "/v1/openapi.json",
        summary: "This document",
        params: &[],
        body: &[],
        status: 200,
        answer: "This document",
        answers: JSON,
    },
    Endpoint {
        roles: &["writer"],
        method: "PUT",
        path: "/v1/kv/{key}",
        summary: "Put: the body is the value; the key is the raw rest of the path",
        params: &[KEY, TTL, ACK],
        body: ANY,
        status: 200,
        answer: POSITION,
        answers: JSON,
    },
    Endpoint {
        roles: &["writer"],
        method: "DELETE",
        path: "/v1/kv/{key}",
        summary: "Delete; also where the key is absent",
        params: &[KEY, ACK],
        body: &[],
        status: 200,
        answer: POSITION,
        answers: JSON,
    },
    Endpoint {
        roles: &["writer"],
        method: "POST",
        path: "/v1/batch",
        summary: "Atomic group of mutations: all or nothing, consecutive numbers",
        params: &[ACK],
        body: BULK,
        status: 200,
        answer: "first_seq, last_seq, count, epoch, position",
        answers: JSON,
    },
    Endpoint {
        roles: &["writer"],
        method: "POST",
        path: "/v1/ingest",
        summary: "Unbounded stream of mutations, committed in pieces as it flows",
        params: &[ACK],
        body: BULK,
        status: 200,
        answer: "One summary, or progress lines and a last line with done or error",
        answers: &["application/json", "application/x-ndjson"],
    },
    Endpoint {
        roles: &["writer"],
        method: "POST",
        path: "/v1/events/{stream}",
        summary: "Append one value, or with NDJSON or frames many in one atomic batch",
        params: &[TTL, ACK],
        body: &["application/octet-stream", "application/x-ndjson", "application/vnd.isle.frames"],
        status: 200,
        answer: "first_seq, last_seq, count, epoch, position, and key when single",
        answers: JSON,
    },
    Endpoint {
        roles: &["writer"],
        method: "POST",
        path: "/v1/flush",
        summary: "Wait until everything accepted is committed",
        params: &[],
        body: &[],
        status: 200,
        answer: POSITION,
        answers: JSON,
    },
    Endpoint {
        roles: &["writer"],
        method: "GET",
        path: "/v1/leader",
        summary: "200 on the active writer, 503 with its address elsewhere",
        params: &[],
        body: &[],
        status: 200,
        answer: "This is the active writer",
        answers: JSON,
    },
    Endpoint {
        roles: &["reader"],
        method: "GET",
        path: "/v1/kv/{key}",
        summary: "The value; 404 not_found when the key is absent",
        params: &[KEY, MIN_SEQ, WAIT, SNAPSHOT],
        body: &[],
        status: 200,
        answer: "The value, with Isle-Seq and Isle-View-Seq",
        answers: ANY,
    },
    Endpoint {
        roles: &["reader"],
        method: "HEAD",
        path: "/v1/kv/{key}",
        summary: "The same without the value",
        params: &[KEY, MIN_SEQ, WAIT, SNAPSHOT],
        body: &[],
        status: 200,
        answer: "The key is there",
        answers: &[],
    },
    Endpoint {
        roles: &["reader"],
        method: "POST",
        path: "/v1/mget",
        summary: "Many keys in, their rows out in the same order",
        params: &[MIN_SEQ, WAIT, SNAPSHOT, ENCODING, FORMAT],
        body: BULK,
        status: 200,
        answer: "Rows and absent keys, then a trailer",
        answers: BULK,
    },
    Endpoint {
        roles: &["reader"],
        method: "GET",
        path: "/v1/scan",
        summary: "Rows of a prefix or of a half-open range",
        params: &[
            text("prefix", "keys that begin with this"),
            text("prefix_b64", "the same in base64"),
            text("start", "first key of the range"),
            text("start_b64", "the same in base64"),
            text("end", "first key beyond the range"),
            text("end_b64", "the same in base64"),
            number("limit", "rows of one page"),
            flag("reverse", "descending"),
            flag("keys_only", "without values"),
            text("page", "token of the next page"),
            flag("consistent", "410 view_expired rather than a newer view"),
            MIN_SEQ,
            WAIT,
            SNAPSHOT,
            ENCODING,
            FORMAT,
        ],
        body: &[],
        status: 200,
        answer: "Rows, then a trailer with next_page and view_seq",
        answers: BULK,
    },
    Endpoint {
        roles: &["reader"],
        method: "POST",
        path: "/v1/scan",
        summary: "The same with its fields as JSON",
        params: &[],
        body: JSON,
        status: 200,
        answer: "Rows, then a trailer with next_page and view_seq",
        answers: BULK,
    },
    Endpoint {
        roles: &["writer", "reader", "tailer", "compactor"],
        method: "GET",
        path: "/v1/status",
        summary: "What this program is doing",
        params: &[],
        body: &[],
        status: 200,
        answer: "Figures of the role",
        answers: JSON,
    },
    Endpoint {
        roles: &["tailer"],
        method: "GET",
        path: "/v1/tail",
        summary: "Endless stream of changes in sequence order",
        params: &[
            text("from", "earliest, latest, a cursor, seq:<n> or time:<RFC 3339>"),
            text("prefix", "changes of keys that begin with this"),
            text("prefix_b64", "the same in base64"),
            text("format", "sse, ndjson or frames; beats Accept"),
            ENCODING,
        ],
        body: &[],
        status: 200,
        answer: "Changes and heartbeats, ended by a closing or error event",
        answers: &["text/event-stream", "application/x-ndjson", "application/vnd.isle.frames"],
    },
    Endpoint {
        roles: &["tailer"],
        method: "GET",
        path: "/v1/changes",
        summary: "One bounded page of changes",
        params: &[
            text("from", "earliest, latest, a cursor, seq:<n> or time:<RFC 3339>"),
            text("prefix", "changes of keys that begin with this"),
            text("prefix_b64", "the same in base64"),
            number("limit", "most changes of the page"),
            number("max_bytes", "most bytes of the page"),
            text("wait", "longest wait for the first change"),
            ENCODING,
        ],
        body: &[],
        status: 200,
        answer: "changes, next, head, caught_up",
        answers: JSON,
    },
    Endpoint {
        roles: &["compactor"],
        method: "POST",
        path: "/v1/compact",
        summary: "Start a compaction now",
        params: &[],
        body: &[],
        status: 202,
        answer: "The job",
        answers: JSON,
    },
    Endpoint {
        roles: &["compactor"],
        method: "POST",
        path: "/v1/pause",
        summary: "Start no new job",
        params: &[],
        body: &[],
        status: 200,
        answer: "Paused",
        answers: JSON,
    },
    Endpoint {
        roles: &["compactor"],
        method: "POST",
        path: "/v1/resume",
        summary: "Start jobs again",
        params: &[],
        body: &[],
        status: 200,
        answer: "Running",
        answers: JSON,
    },
];
