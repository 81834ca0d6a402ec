pub mod checkpoint;
pub mod publisher;
pub mod verify;
