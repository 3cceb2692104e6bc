//! Where decisions meet IO: the public handles.

mod collection;
mod database;
mod request;

pub use collection::Collection;
pub use database::{Db, Options};
pub use request::{
    CollectionStats, Durability, Hit, QueryRequest, SearchRequest, SearchResponse, Target, WriteResponse,
};
