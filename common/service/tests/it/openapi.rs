//! The document as a client gets it.

use isle_service::ErrorCode;
use isle_service::server::Routes;

use super::support::{json_of, start};

#[tokio::test]
async fn the_served_document_holds_the_one_table_of_errors() {
    let server = start(Routes::new()).await;
    let (status, json) = json_of(server.get("/v1/openapi.json").await).await;
    assert_eq!(status, 200);
    let rows = json["x-isle-errors"].as_array().unwrap();
    let served: Vec<(&str, u64)> =
        rows.iter().map(|r| (r["code"].as_str().unwrap(), r["status"].as_u64().unwrap())).collect();
    let known: Vec<(&str, u64)> =
        ErrorCode::ALL.iter().map(|c| (c.as_str(), u64::from(c.status().as_u16()))).collect();
    assert_eq!(served, known);
    assert!(json["paths"]["/v1/kv/{key}"]["put"].is_object());
}
