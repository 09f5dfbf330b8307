//! What this program uses of kosmos.h, as it stands there. `bindgen` makes the whole of it.
//!
//! The structs may be shorter than the library's: they end where this program's interest ends, and `struct_size`
//! says so.

use std::os::raw::{c_char, c_void};

pub type Status = i32;
pub const OK: Status = 0;
pub const CANCELLED: Status = 8;
pub const ABI_VERSION: i32 = 0;
pub const ON: i32 = 1;
pub const OFF: i32 = -1;
pub const EVENT_TEXT: i32 = 2;
pub const EVENT_ENTITY: i32 = 3;

macro_rules! opaque {
    ($($name:ident),*) => { $(#[repr(C)] pub struct $name { _private: [u8; 0] })* };
}
opaque!(Error, Cancel, Model, Image, Answer);

pub type EventCallback = unsafe extern "C" fn(*const Event, *mut c_void) -> i32;

#[repr(C)]
pub struct LoadOptions {
    pub struct_size: usize,
    pub device: *const c_char,
    pub isa: *const c_char,
    pub threads: i32,
    pub copy: i32,
    pub on_progress: Option<unsafe extern "C" fn(u64, u64, *mut c_void) -> i32>,
    pub on_log: Option<unsafe extern "C" fn(i32, *const c_char, *mut c_void)>,
    pub user: *mut c_void,
    pub cancel: *mut Cancel,
}

#[repr(C)]
pub struct ModelInfo {
    pub struct_size: usize,
    pub names: [*const c_char; 5],
    pub sizes: [i32; 8],
    pub file_bytes: u64,
    pub architecture: *const c_char,
    pub preprocessing: *const c_char,
    pub tasks: *const *const c_char,
    pub task_count: usize,
}

#[repr(C)]
pub struct Picture {
    pub struct_size: usize,
    pub pixels: *const u8,
    pub width: i32,
    pub height: i32,
    pub stride: isize,
    pub format: i32,
    pub reserved: i32,
}

#[repr(C)]
pub struct EncodeOptions {
    pub struct_size: usize,
    pub cancel: *mut Cancel,
}

#[repr(C)]
pub struct Box {
    pub fractions: [f64; 4],
    pub pixels: [f64; 4],
    pub score: f64,
    pub cells: [i32; 2],
    pub valid: i32,
    pub reserved: i32,
}

#[repr(C)]
pub struct Entity {
    pub struct_size: usize,
    pub phrase: *const c_char,
    pub phrase_length: usize,
    pub start: usize,
    pub end: usize,
    pub score: f64,
    pub boxes: *const Box,
    pub box_count: usize,
}

#[repr(C)]
pub struct Event {
    pub struct_size: usize,
    pub kind: i32,
    pub token_id: i32,
    pub logprob: f64,
    pub text: *const c_char,
    pub text_length: usize,
    pub entity: *const Entity,
}

#[repr(C)]
pub struct Options {
    pub struct_size: usize,
    pub max_tokens: i32,
    pub num_beams: i32,
    pub temperature: f64,
    pub top_p: f64,
    pub top_k: i32,
    pub no_repeat_ngram_size: i32,
    pub seed: u64,
    pub length_penalty: f64,
    pub use_length_penalty: i32,
    pub ground: i32,
    pub grammar: i32,
    pub lead_in: i32,
    pub logprobs: i32,
    pub detailed: i32,
    pub stop: *const *const c_char,
    pub stop_count: usize,
    pub choices: *const *const c_char,
    pub choice_count: usize,
    pub cancel: *mut Cancel,
    pub on_abort: Option<unsafe extern "C" fn(*mut c_void) -> i32>,
    pub on_event: Option<EventCallback>,
    pub user: *mut c_void,
}

#[repr(C)]
pub struct AnswerInfo {
    pub struct_size: usize,
    pub text: *const c_char,
    pub text_length: usize,
    pub entity_count: usize,
}

extern "C" {
    pub fn kosmos_abi_version() -> i32;
    pub fn kosmos_status_name(status: Status) -> *const c_char;
    pub fn kosmos_error_message(error: *const Error) -> *const c_char;
    pub fn kosmos_error_free(error: *mut Error);
    pub fn kosmos_cancel_create(cancel: *mut *mut Cancel, error: *mut *mut Error) -> Status;
    pub fn kosmos_cancel_set(cancel: *mut Cancel, error: *mut *mut Error) -> Status;
    pub fn kosmos_cancel_free(cancel: *mut Cancel);
    pub fn kosmos_model_get(model: *const Model, info: *mut ModelInfo, error: *mut *mut Error) -> Status;
    pub fn kosmos_model_load(
        path: *const c_char,
        options: *const LoadOptions,
        model: *mut *mut Model,
        error: *mut *mut Error,
    ) -> Status;
    pub fn kosmos_model_free(model: *mut Model);
    pub fn kosmos_image_encode(
        model: *const Model,
        picture: *const Picture,
        options: *const EncodeOptions,
        image: *mut *mut Image,
        error: *mut *mut Error,
    ) -> Status;
    pub fn kosmos_image_free(image: *mut Image);
    pub fn kosmos_caption(
        model: *const Model,
        image: *const Image,
        options: *const Options,
        result: *mut *mut Answer,
        error: *mut *mut Error,
    ) -> Status;
    pub fn kosmos_ask(
        model: *const Model,
        image: *const Image,
        question: *const c_char,
        options: *const Options,
        result: *mut *mut Answer,
        error: *mut *mut Error,
    ) -> Status;
    pub fn kosmos_result_get(result: *const Answer, info: *mut AnswerInfo, error: *mut *mut Error) -> Status;
    pub fn kosmos_result_get_entity(
        result: *const Answer,
        index: usize,
        entity: *mut Entity,
        error: *mut *mut Error,
    ) -> Status;
    pub fn kosmos_result_free(result: *mut Answer);
}
