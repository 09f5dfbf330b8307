// Handles are numbers that a table translates, never addresses that are followed: one that is NULL, freed, of another
// kind or made up is recognised, and whoever looked an object up keeps it alive, whatever other threads free meanwhile.
#pragma once
#include <cstdint>
#include <memory>

namespace ke::capi {

enum class Kind : uint8_t { Model = 1, Image, Result, Ranking, Cancel, Error };

// A new handle of the object. OutOfMemory when there are too many.
void* insert_handle(Kind kind, std::shared_ptr<void> object);
// The object; empty when this is no live handle of this kind.
std::shared_ptr<void> find_handle(const void* handle, Kind kind) noexcept;
// The same, and the handle is dead from now on.
std::shared_ptr<void> take_handle(const void* handle, Kind kind) noexcept;

// A number of this process that its forked children do not share.
int64_t process_number() noexcept;

}  // namespace ke::capi
