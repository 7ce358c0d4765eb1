//! The contract of coordination, run by the memory form and by the bucket form on two stores.

use std::sync::Arc;

use isle_testkit::contract;
use isle_testkit::contract::coordination::Service;

use super::services::{Memory, Objects};

#[tokio::test(flavor = "multi_thread")]
async fn the_memory_form_keeps_the_contract() {
    contract::coordination(|| async { Memory::fresh() as Arc<dyn Service> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_form_keeps_the_contract_in_memory() {
    contract::coordination(|| async { Objects::in_memory() as Arc<dyn Service> }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_bucket_form_keeps_the_contract_in_files() {
    contract::coordination(|| async { Objects::in_files() as Arc<dyn Service> }).await;
}
