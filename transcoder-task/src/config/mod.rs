pub mod profile;
pub mod settings;
