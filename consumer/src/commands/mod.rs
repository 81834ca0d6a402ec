pub mod check;
pub mod format;
pub mod history;
pub mod progress;
pub mod redrive;
pub mod submit;
