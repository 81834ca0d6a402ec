pub mod checkpoint;
pub mod publisher;
pub mod recovery;
pub mod verify;
