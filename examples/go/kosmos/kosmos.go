// Package kosmos is a thin, safe wrapper of kosmos.h: models, pictures, and answers that stream.
//
// All methods may be called from any goroutine at any time. Close a Model and an Image when they are no longer needed.
package kosmos

/*
#cgo CFLAGS: -std=gnu11
#include <kosmos.h>
#include <stdlib.h>
#include <string.h>

extern int32_t kosmosGoEvent(kosmos_event *event, void *user);

// Whether the model can give boxes. Others refuse to be asked for them.
static int32_t ground_for(const kosmos_model *model) {
  kosmos_model_info info = KOSMOS_INIT(kosmos_model_info);
  if (kosmos_model_get(model, &info, NULL) != KOSMOS_OK) return KOSMOS_OFF;
  for (size_t i = 0; i < info.task_count; i++)
    if (strcmp(info.tasks[i], "ground") == 0) return KOSMOS_ON;
  return KOSMOS_OFF;
}

// Go's handles are numbers; C wants pointers.
static void set_callback(kosmos_options *options, uintptr_t handle) {
  options->on_event = (kosmos_event_callback)kosmosGoEvent;
  options->user = (void *)handle;
}
*/
import "C"

import (
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"runtime"
	"runtime/cgo"
	"unsafe"
)

// Error is an error of the library: its status name, as KOSMOS_ERROR_MODEL_NOT_FOUND, and a sentence.
type Error struct {
	Status  string
	Message string
}

func (e *Error) Error() string { return e.Message }

// check makes an error of a status, and frees the library's. A call that ctx ended returns ctx.Err().
func check(ctx context.Context, status C.kosmos_status, failed *C.kosmos_error) error {
	if status == C.KOSMOS_OK {
		return nil
	}
	defer C.kosmos_error_free(failed)
	if status == C.KOSMOS_ERROR_CANCELLED && ctx.Err() != nil {
		return ctx.Err()
	}
	return &Error{C.GoString(C.kosmos_status_name(status)), C.GoString(C.kosmos_error_message(failed))}
}

// flag returns a cancel flag that is set when ctx ends, and what to call when the work is done.
func flag(ctx context.Context) (*C.kosmos_cancel, func(), error) {
	var cancel *C.kosmos_cancel
	var failed *C.kosmos_error
	if err := check(ctx, C.kosmos_cancel_create(&cancel, &failed), failed); err != nil {
		return nil, nil, err
	}
	if ctx.Done() == nil {
		return cancel, func() { C.kosmos_cancel_free(cancel) }, nil
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-ctx.Done():
			C.kosmos_cancel_set(cancel, nil)
		case <-done:
		}
	}()
	return cancel, func() {
		close(done)
		<-ended
		C.kosmos_cancel_free(cancel)
	}, nil
}

// Model is an open model.
type Model struct{ handle *C.kosmos_model }

// Load opens a GGUF file.
func Load(ctx context.Context, path string) (*Model, error) {
	if C.kosmos_abi_version() != C.KOSMOS_ABI_VERSION {
		return nil, fmt.Errorf("kosmos: built for another library than version %s", C.GoString(C.kosmos_version()))
	}
	cancel, release, err := flag(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	options := C.kosmos_load_options{struct_size: C.sizeof_kosmos_load_options, cancel: cancel}
	model := new(Model)
	var failed *C.kosmos_error
	if err := check(ctx, C.kosmos_model_load(name, &options, &model.handle, &failed), failed); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(model, (*Model).Close) // for those who forget
	return model, nil
}

// Close releases the memory as soon as the last call that uses the model has ended.
func (m *Model) Close() {
	runtime.SetFinalizer(m, nil)
	C.kosmos_model_free(m.handle)
}

// Image is a picture that the model has looked at. Any number of requests may use it.
type Image struct{ handle *C.kosmos_image }

// Encode looks at a picture. Transparent pixels get a white background.
func (m *Model) Encode(ctx context.Context, picture image.Image) (*Image, error) {
	cancel, release, err := flag(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	bounds := picture.Bounds()
	rgb := pixels(picture)
	if len(rgb) == 0 {
		return nil, errors.New("kosmos: an empty picture")
	}
	memory := C.CBytes(rgb) // a struct passed to C holds no pointers to Go's memory
	defer C.free(memory)
	given := C.kosmos_picture{
		struct_size: C.sizeof_kosmos_picture,
		pixels:      (*C.uint8_t)(memory),
		width:       C.int32_t(bounds.Dx()),
		height:      C.int32_t(bounds.Dy()),
	}
	options := C.kosmos_encode_options{struct_size: C.sizeof_kosmos_encode_options, cancel: cancel}
	encoded := new(Image)
	var failed *C.kosmos_error
	status := C.kosmos_image_encode(m.handle, &given, &options, &encoded.handle, &failed)
	runtime.KeepAlive(m)
	if err := check(ctx, status, failed); err != nil {
		return nil, err
	}
	runtime.SetFinalizer(encoded, (*Image).Close)
	return encoded, nil
}

// Close releases the memory.
func (i *Image) Close() {
	runtime.SetFinalizer(i, nil)
	C.kosmos_image_free(i.handle)
}

func pixels(picture image.Image) []byte {
	bounds := picture.Bounds()
	rgb := make([]byte, 0, bounds.Dx()*bounds.Dy()*3)
	for y := bounds.Min.Y; y < bounds.Max.Y; y++ {
		for x := bounds.Min.X; x < bounds.Max.X; x++ {
			c := color.NRGBAModel.Convert(picture.At(x, y)).(color.NRGBA)
			for _, v := range [3]uint8{c.R, c.G, c.B} {
				rgb = append(rgb, uint8((uint32(v)*uint32(c.A)+255*(255-uint32(c.A))+127)/255))
			}
		}
	}
	return rgb
}

// Box is a rectangle in pixels of the picture.
type Box struct{ X1, Y1, X2, Y2, Score float64 }

// Phrase is a part of an answer with the places in the picture that it names.
type Phrase struct {
	Text       string
	Start, End int // bytes of the answer's text
	Boxes      []Box
}

// Answer is what the model says.
type Answer struct {
	Text    string
	Phrases []Phrase
	Notes   []string // what one should know about this answer
}

// Stream receives an answer while it is made. Each function may be nil.
type Stream struct {
	Text   func(part string)   // the next part; all parts joined are the answer's text
	Phrase func(phrase Phrase) // Text has given the text up to its end
}

// Caption says what the picture shows, with boxes if the model can give them. ctx cancels it.
func (m *Model) Caption(ctx context.Context, image *Image, stream Stream) (*Answer, error) {
	return m.answer(ctx, stream, func(options *C.kosmos_options, result **C.kosmos_result,
		failed **C.kosmos_error) C.kosmos_status {
		options.ground = C.ground_for(m.handle)
		defer runtime.KeepAlive(image)
		return C.kosmos_caption(m.handle, image.handle, options, result, failed)
	})
}

// Ask answers a question about the picture. ctx cancels it.
func (m *Model) Ask(ctx context.Context, image *Image, question string, stream Stream) (*Answer, error) {
	text := C.CString(question)
	defer C.free(unsafe.Pointer(text))
	return m.answer(ctx, stream, func(options *C.kosmos_options, result **C.kosmos_result,
		failed **C.kosmos_error) C.kosmos_status {
		defer runtime.KeepAlive(image)
		return C.kosmos_ask(m.handle, image.handle, text, options, result, failed)
	})
}

type call func(options *C.kosmos_options, result **C.kosmos_result, failed **C.kosmos_error) C.kosmos_status

func (m *Model) answer(ctx context.Context, stream Stream, do call) (*Answer, error) {
	cancel, release, err := flag(ctx)
	if err != nil {
		return nil, err
	}
	defer release()
	handle := cgo.NewHandle(stream)
	defer handle.Delete()
	options := C.kosmos_options{struct_size: C.sizeof_kosmos_options, cancel: cancel}
	C.set_callback(&options, C.uintptr_t(handle))
	var result *C.kosmos_result
	var failed *C.kosmos_error
	status := do(&options, &result, &failed)
	runtime.KeepAlive(m)
	if err := check(ctx, status, failed); err != nil {
		return nil, err
	}
	defer C.kosmos_result_free(result)
	if ctx.Err() != nil { // ctx ended with the last token
		return nil, ctx.Err()
	}
	return read(ctx, result)
}

// read copies a result.
func read(ctx context.Context, result *C.kosmos_result) (*Answer, error) {
	info := C.kosmos_result_info{struct_size: C.sizeof_kosmos_result_info}
	var failed *C.kosmos_error
	if err := check(ctx, C.kosmos_result_get(result, &info, &failed), failed); err != nil {
		return nil, err
	}
	answer := &Answer{Text: C.GoString(info.text)}
	for _, note := range unsafe.Slice(info.notes, int(info.note_count)) {
		answer.Notes = append(answer.Notes, C.GoString(note))
	}
	for i := C.size_t(0); i < info.entity_count; i++ {
		entity := C.kosmos_entity{struct_size: C.sizeof_kosmos_entity}
		if err := check(ctx, C.kosmos_result_get_entity(result, i, &entity, &failed), failed); err != nil {
			return nil, err
		}
		answer.Phrases = append(answer.Phrases, phrase(&entity))
	}
	return answer, nil
}

func phrase(entity *C.kosmos_entity) Phrase {
	found := Phrase{Text: C.GoString(entity.phrase), Start: int(entity.start), End: int(entity.end)}
	for _, box := range unsafe.Slice(entity.boxes, int(entity.box_count)) {
		found.Boxes = append(found.Boxes, Box{
			float64(box.px1), float64(box.py1), float64(box.px2), float64(box.py2), float64(box.score),
		})
	}
	return found
}
