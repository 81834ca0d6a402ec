pub mod dead_letter;
pub mod decide;
pub mod notification;
pub mod receive_loop;
pub mod restart;
pub mod settle;
pub mod visibility;
