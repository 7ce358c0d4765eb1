//! The document of all endpoints, served by every program at `/v1/openapi.json`.
//!
//! It is built from two tables: [`endpoints`](self) of paths, and [`ErrorCode::ALL`], which is the one table of error
//! codes. A copy lies in the tree beside this crate, so that a change of the contract is seen as a change of a file.

mod endpoints;
mod schemas;

use serde_json::{Map, Value, json};

use crate::error::ErrorCode;
use crate::server::Routes;

use endpoints::{ENDPOINTS, Endpoint, Param};

/// The whole document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for endpoint in ENDPOINTS {
        let methods = paths.entry(endpoint.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = methods {
            methods.insert(endpoint.method.to_lowercase(), operation(endpoint));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Isle",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "A key-value store and event log in an object-storage bucket. Each path names the programs that serve it in x-isle-roles.",
        },
        "paths": paths,
        "components": {
            "schemas": schemas::all(),
            "responses": { "Error": {
                "description": "The request failed; x-isle-errors lists every code.",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/Error" } } },
            } },
        },
        "x-isle-errors": ErrorCode::ALL.iter().map(|c| error_row(*c)).collect::<Vec<_>>(),
    })
}

fn error_row(code: ErrorCode) -> Value {
    json!({
        "code": code.as_str(),
        "status": code.status().as_u16(),
        "retryable": code.retryable(),
        "meaning": code.meaning(),
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut parameters: Vec<Value> = path_names(endpoint.path)
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    parameters.extend(endpoint.params.iter().map(parameter));
    let mut operation = json!({
        "operationId": operation_id(endpoint),
        "summary": endpoint.summary,
        "x-isle-roles": endpoint.roles,
        "responses": {
            endpoint.status.to_string(): answer(endpoint),
            "default": { "$ref": "#/components/responses/Error" },
        },
    });
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if !endpoint.body.is_empty() {
        operation["requestBody"] = json!({ "content": content(endpoint.body, endpoint.takes) });
    }
    operation
}

fn answer(endpoint: &Endpoint) -> Value {
    let mut answer = json!({ "description": endpoint.answer });
    if !endpoint.answers.is_empty() {
        answer["content"] = content(endpoint.answers, endpoint.gives);
    }
    answer
}

fn parameter(param: &Param) -> Value {
    json!({
        "name": param.name,
        "in": "query",
        "description": param.what,
        "schema": { "type": param.kind },
    })
}

/// Each media type, with the schema where it is JSON; the schema of NDJSON and SSE is that of one line.
fn content(types: &[&str], schema: Option<&str>) -> Value {
    let of = |media_type: &str| match schema {
        Some(name) if media_type.contains("json") || media_type.contains("event-stream") => {
            json!({ "schema": { "$ref": format!("#/components/schemas/{name}") } })
        }
        _ => json!({}),
    };
    types.iter().map(|t| ((*t).to_owned(), of(t))).collect::<Map<_, _>>().into()
}

fn path_names(path: &str) -> impl Iterator<Item = &str> {
    path.split('{').skip(1).filter_map(|rest| rest.split_once('}')).map(|(name, _)| name)
}

fn operation_id(endpoint: &Endpoint) -> String {
    let words =
        endpoint.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty() && *w != "v1");
    let words: Vec<&str> = words.collect();
    format!("{}_{}", endpoint.method.to_lowercase(), words.join("_"))
}

/// What is wrong between a role's routes and the document: routes that are not in it, and documented endpoints of the
/// role that are not served. Empty when they agree; a role's test says so.
#[must_use]
pub fn differences(role: &str, routes: &Routes) -> Vec<String> {
    let served =
        |e: &Endpoint| routes.list().iter().any(|(method, path)| *method == e.method && *path == e.path);
    let of_role = || ENDPOINTS.iter().filter(|e| e.roles.contains(&role));
    let missing = of_role().filter(|e| !served(e)).map(|e| format!("not served: {} {}", e.method, e.path));
    let unknown = routes
        .list()
        .iter()
        .filter(|(method, path)| !of_role().any(|e| e.method == *method && e.path == *path))
        .map(|(method, path)| format!("not documented for {role}: {method} {path}"));
    missing.chain(unknown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const COPY: &str = include_str!("../../openapi.json");

    #[test]
    fn the_copy_in_the_tree_is_the_document() {
        if std::env::var_os("ISLE_WRITE_OPENAPI").is_some() {
            let shown = serde_json::to_string_pretty(&document()).unwrap() + "\n";
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json"), &shown).unwrap();
            return;
        }
        // Compared as values: the order of members depends on which features a build happens to unify.
        let copy: Value = serde_json::from_str(COPY).unwrap();
        assert!(
            copy == document(),
            "the contract has changed; ISLE_WRITE_OPENAPI=1 cargo test writes the copy anew"
        );
    }

    #[test]
    fn the_table_of_errors_is_the_code() {
        let copy: Value = serde_json::from_str(COPY).unwrap();
        let rows = copy["x-isle-errors"].as_array().unwrap();
        assert_eq!(rows.len(), ErrorCode::ALL.len());
        for (row, code) in rows.iter().zip(ErrorCode::ALL) {
            assert_eq!(row["code"], code.as_str());
            assert_eq!(row["status"], code.status().as_u16());
            assert_eq!(row["retryable"], code.retryable());
        }
    }

    #[test]
    fn operations_are_unique() {
        let mut ids: Vec<String> = ENDPOINTS.iter().map(operation_id).collect();
        ids.sort();
        let count = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), count);
    }

    #[test]
    fn every_schema_named_is_there() {
        let document = document();
        let text = document.to_string();
        let named = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
        for name in named {
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }

    #[test]
    fn differences_name_both_sides() {
        let routes = Routes::new().post("/v1/compact", || async {}).get("/v1/made_up", || async {});
        let found = differences("compactor", &routes);
        assert!(found.contains(&"not documented for compactor: GET /v1/made_up".to_owned()), "{found:?}");
        assert!(found.contains(&"not served: POST /v1/pause".to_owned()), "{found:?}");
        assert!(!found.iter().any(|d| d.contains("/v1/compact")), "{found:?}");
    }
}
