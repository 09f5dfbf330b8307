package kosmos

// In a file of its own: one that exports functions to C may not define any in C.

/*
#include <kosmos.h>
*/
import "C"

import (
	"runtime/cgo"
	"unsafe"
)

//export kosmosGoEvent
func kosmosGoEvent(event *C.kosmos_event, user unsafe.Pointer) C.int32_t {
	stream := cgo.Handle(uintptr(user)).Value().(Stream)
	switch {
	case event.kind == C.KOSMOS_EVENT_TEXT && stream.Text != nil:
		stream.Text(C.GoString(event.text))
	case event.kind == C.KOSMOS_EVENT_ENTITY && stream.Phrase != nil:
		stream.Phrase(phrase(event.entity))
	}
	return 0
}
