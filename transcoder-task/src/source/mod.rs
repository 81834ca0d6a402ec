pub mod loopback;
pub mod object;
pub mod prefetch;
