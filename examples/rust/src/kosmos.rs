//! A thin, safe wrapper of kosmos.h: models, pictures, and answers that stream.

mod ffi;

use std::any::Any;
use std::ffi::{CStr, CString};
use std::fmt;
use std::mem::{size_of, zeroed};
use std::os::raw::{c_char, c_void};
use std::panic::{catch_unwind, resume_unwind, AssertUnwindSafe};
use std::ptr::{null, null_mut};
use std::sync::Arc;

/// An error of the library: its status name, as KOSMOS_ERROR_MODEL_NOT_FOUND, and a sentence.
#[derive(Debug)]
pub struct Error {
    pub status: String,
    pub message: String,
    pub cancelled: bool,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    fn of_argument(message: &str) -> Error {
        let status = "KOSMOS_ERROR_INVALID_REQUEST".into();
        Error { status, message: message.into(), cancelled: false }
    }
}

pub type Result<T> = std::result::Result<T, Error>;

/// The library's text is UTF-8 and never NULL where this is used.
unsafe fn text_of(text: *const c_char) -> String {
    CStr::from_ptr(text).to_string_lossy().into_owned()
}

/// Makes a Result of a status, and frees the library's error.
fn check(status: ffi::Status, error: *mut ffi::Error) -> Result<()> {
    if status == ffi::OK {
        return Ok(());
    }
    // SAFETY: the library gave the error, and it is freed after its message is copied.
    unsafe {
        let message = text_of(ffi::kosmos_error_message(error));
        ffi::kosmos_error_free(error);
        let status_name = text_of(ffi::kosmos_status_name(status));
        Err(Error { status: status_name, message, cancelled: status == ffi::CANCELLED })
    }
}

fn c_string(text: &str) -> Result<CString> {
    CString::new(text).map_err(|_| Error::of_argument("a text holds a zero byte"))
}

/// Ends calls from another thread, or from a callback. Clones are the same flag. It cannot be reset.
#[derive(Clone)]
pub struct Canceller(Arc<Flag>);

struct Flag(*mut ffi::Cancel);

// SAFETY: "Every function may be called from any thread at any time, on the same handles, too" (kosmos.h). So it is for
// Model and Image below.
unsafe impl Send for Flag {}
unsafe impl Sync for Flag {}

impl Drop for Flag {
    fn drop(&mut self) {
        unsafe { ffi::kosmos_cancel_free(self.0) }
    }
}

impl Canceller {
    pub fn new() -> Result<Canceller> {
        let (mut flag, mut error) = (null_mut(), null_mut());
        check(unsafe { ffi::kosmos_cancel_create(&mut flag, &mut error) }, error)?;
        Ok(Canceller(Arc::new(Flag(flag))))
    }

    /// Every call with this flag, running or future, ends with an error that is `cancelled`.
    pub fn cancel(&self) {
        unsafe { ffi::kosmos_cancel_set((self.0).0, null_mut()) };
    }
}

fn flag_of(canceller: Option<&Canceller>) -> *mut ffi::Cancel {
    canceller.map_or(null_mut(), |c| (c.0).0)
}

/// RGB bytes, upright.
pub struct Picture {
    pub pixels: Vec<u8>,
    pub width: i32,
    pub height: i32,
}

/// A rectangle in pixels of the picture.
#[derive(Clone, Debug)]
pub struct Box {
    pub x1: f64,
    pub y1: f64,
    pub x2: f64,
    pub y2: f64,
    pub score: f64,
}

/// A part of an answer with the places in the picture that it names.
#[derive(Clone, Debug)]
pub struct Phrase {
    pub text: String,
    pub range: std::ops::Range<usize>,
    pub boxes: Vec<Box>,
}

impl Phrase {
    unsafe fn of(entity: &ffi::Entity) -> Phrase {
        let boxes = std::slice::from_raw_parts(entity.boxes, entity.box_count);
        let boxes = boxes.iter().map(|b| {
            let [x1, y1, x2, y2] = b.pixels;
            Box { x1, y1, x2, y2, score: b.score }
        });
        Phrase { text: text_of(entity.phrase), range: entity.start..entity.end, boxes: boxes.collect() }
    }
}

/// What comes while an answer is made.
pub enum Event {
    /// The next part; all parts joined are the answer's text.
    Text(String),
    /// Text events have given the text up to its end.
    Phrase(Phrase),
}

#[derive(Debug)]
pub struct Answer {
    pub text: String,
    pub phrases: Vec<Phrase>,
}

/// A picture that the model has looked at. Any number of requests may use it.
pub struct Image(*mut ffi::Image);

unsafe impl Send for Image {}
unsafe impl Sync for Image {}

impl Drop for Image {
    fn drop(&mut self) {
        unsafe { ffi::kosmos_image_free(self.0) }
    }
}

/// An open model.
pub struct Model(*mut ffi::Model);

unsafe impl Send for Model {}
unsafe impl Sync for Model {}

impl Drop for Model {
    fn drop(&mut self) {
        unsafe { ffi::kosmos_model_free(self.0) }
    }
}

/// The caller's closure, and its panic, which must not pass through the library.
struct Receiver<'a> {
    receive: &'a mut dyn FnMut(Event),
    panic: Option<std::boxed::Box<dyn Any + Send>>,
}

unsafe extern "C" fn on_event(event: *const ffi::Event, user: *mut c_void) -> i32 {
    let receiver = &mut *(user as *mut Receiver);
    let event = &*event;
    let told = match event.kind {
        ffi::EVENT_TEXT => Event::Text(text_of(event.text)),
        ffi::EVENT_ENTITY => Event::Phrase(Phrase::of(&*event.entity)),
        _ => return 0,
    };
    match catch_unwind(AssertUnwindSafe(|| (receiver.receive)(told))) {
        Ok(()) => 0,
        Err(panic) => {
            receiver.panic = Some(panic);
            1 // stop
        }
    }
}

impl Model {
    /// Opens a GGUF file.
    pub fn load(path: &str, canceller: Option<&Canceller>) -> Result<Model> {
        if unsafe { ffi::kosmos_abi_version() } != ffi::ABI_VERSION {
            return Err(Error::of_argument("this program was made for another version of kosmos-edge"));
        }
        let path = c_string(path)?;
        let mut options: ffi::LoadOptions = unsafe { zeroed() }; // 0 is the default of every field
        options.struct_size = size_of::<ffi::LoadOptions>();
        options.cancel = flag_of(canceller);
        let (mut model, mut error) = (null_mut(), null_mut());
        check(unsafe { ffi::kosmos_model_load(path.as_ptr(), &options, &mut model, &mut error) }, error)?;
        Ok(Model(model))
    }

    /// Looks at a picture.
    pub fn encode(&self, picture: &Picture, canceller: Option<&Canceller>) -> Result<Image> {
        let bytes = i64::from(picture.width) * i64::from(picture.height) * 3;
        if bytes < 0 || picture.pixels.len() as i64 != bytes {
            return Err(Error::of_argument("pixels: expected width * height * 3 bytes"));
        }
        let given = ffi::Picture {
            struct_size: size_of::<ffi::Picture>(),
            pixels: picture.pixels.as_ptr(),
            width: picture.width,
            height: picture.height,
            stride: 0,
            format: 0,
            reserved: 0,
        };
        let options = ffi::EncodeOptions { struct_size: size_of::<ffi::EncodeOptions>(), cancel: flag_of(canceller) };
        let (mut image, mut error) = (null_mut(), null_mut());
        let status = unsafe { ffi::kosmos_image_encode(self.0, &given, &options, &mut image, &mut error) };
        check(status, error)?;
        Ok(Image(image))
    }

    /// Whether the model can give boxes. Others refuse to be asked for them.
    fn gives_boxes(&self) -> bool {
        let mut info: ffi::ModelInfo = unsafe { zeroed() };
        info.struct_size = size_of::<ffi::ModelInfo>();
        if unsafe { ffi::kosmos_model_get(self.0, &mut info, null_mut()) } != ffi::OK {
            return false;
        }
        (0..info.task_count).any(|i| unsafe { CStr::from_ptr(*info.tasks.add(i)) }.to_bytes() == b"ground")
    }

    /// What the picture shows, with boxes if the model can give them. `receive` gets it part by part.
    pub fn caption(
        &self,
        image: &Image,
        canceller: Option<&Canceller>,
        mut receive: impl FnMut(Event),
    ) -> Result<Answer> {
        self.answer(image, None, canceller, &mut receive)
    }

    /// The answer to a question about the picture.
    pub fn ask(
        &self,
        image: &Image,
        question: &str,
        canceller: Option<&Canceller>,
        mut receive: impl FnMut(Event),
    ) -> Result<Answer> {
        self.answer(image, Some(&c_string(question)?), canceller, &mut receive)
    }

    fn answer(
        &self,
        image: &Image,
        question: Option<&CStr>,
        canceller: Option<&Canceller>,
        receive: &mut dyn FnMut(Event),
    ) -> Result<Answer> {
        let mut receiver = Receiver { receive, panic: None };
        let mut options: ffi::Options = unsafe { zeroed() };
        options.struct_size = size_of::<ffi::Options>();
        options.cancel = flag_of(canceller);
        options.on_event = Some(on_event);
        options.user = &mut receiver as *mut Receiver as *mut c_void;
        let (mut result, mut error) = (null_mut(), null_mut());
        let status = unsafe {
            match question {
                Some(question) => {
                    ffi::kosmos_ask(self.0, image.0, question.as_ptr(), &options, &mut result, &mut error)
                }
                None => {
                    options.ground = if self.gives_boxes() { ffi::ON } else { ffi::OFF };
                    ffi::kosmos_caption(self.0, image.0, &options, &mut result, &mut error)
                }
            }
        };
        let answer = check(status, error).and_then(|_| unsafe { read(result) });
        unsafe { ffi::kosmos_result_free(result) };
        if let Some(panic) = receiver.panic {
            resume_unwind(panic);
        }
        answer
    }
}

/// Copies a result.
unsafe fn read(result: *const ffi::Answer) -> Result<Answer> {
    let size = size_of::<ffi::AnswerInfo>();
    let mut info = ffi::AnswerInfo { struct_size: size, text: null(), text_length: 0, entity_count: 0 };
    let mut error = null_mut();
    check(ffi::kosmos_result_get(result, &mut info, &mut error), error)?;
    let mut phrases = Vec::with_capacity(info.entity_count);
    for index in 0..info.entity_count {
        let mut entity: ffi::Entity = zeroed();
        entity.struct_size = size_of::<ffi::Entity>();
        check(ffi::kosmos_result_get_entity(result, index, &mut entity, &mut error), error)?;
        phrases.push(Phrase::of(&entity));
    }
    Ok(Answer { text: text_of(info.text), phrases })
}
