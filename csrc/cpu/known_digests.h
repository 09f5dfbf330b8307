// Digests of model files that were read before, kept beside the files of shared weights. A file is known by its device,
// number, size and times, one of which the system sets at every change. One that was changed less than two seconds ago
// is not kept: clocks of file systems may be that coarse.
#pragma once
#include <optional>
#include <string>

#include "base/blake2b.h"
#include "base/mapped_file.h"

namespace ke::cpu {

std::string hex_of(const Digest& digest);
// nullopt: nothing is known, or what is kept is damaged or not trusted.
std::optional<Digest> known_digest(const std::string& folder, const FileIdentity& file);
void know_digest(const std::string& folder, const FileIdentity& file, const Digest& digest);  // may fail silently

}  // namespace ke::cpu
