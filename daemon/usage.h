// Words for a command line that makes no sense, the same for kinfs and kinfsd: the word that is wrong, and the name
// that was most likely meant.
#pragma once

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <string>
#include <vector>

#include "daemon/config.h"

namespace kinfs::daemon {
namespace detail {

using Words = std::vector<std::string>;

inline std::string meant(const std::string& near) {
  return near.empty() ? "" : fmt::format(" (did you mean {}?)", near);
}

inline std::string path_of(const CLI::App& app) {
  const auto* parent = app.get_parent();
  return parent == nullptr ? app.get_name() : path_of(*parent) + " " + app.get_name();
}

inline Words commands_of(const CLI::App& app) {
  Words out;
  for (const auto* sub : app.get_subcommands([](const CLI::App*) { return true; })) out.push_back(sub->get_name());
  return out;
}

/// The long options of `app` and of what it falls through to, without their dashes.
inline Words options_of(const CLI::App& app) {
  Words out;
  for (const auto* a = &app; a != nullptr; a = a->get_parent()) {
    for (const auto* option : a->get_options()) {
      for (const auto& name : option->get_lnames()) {
        if (std::find(out.begin(), out.end(), name) == out.end()) out.push_back(name);
      }
    }
  }
  return out;
}

inline bool needs_command(const CLI::App& app) {
  return app.get_require_subcommand_min() > 0 && app.get_subcommands().empty();
}

/// The command that `words[at]` was given to: the innermost one that was named before it.
inline const CLI::App& command_before(const CLI::App& root, const Words& words, std::size_t at) {
  const auto* app = &root;
  for (std::size_t i = 0; i < at; ++i) {
    for (const auto* sub : app->get_subcommands()) {
      if (sub->get_name() == words[i]) app = sub;
    }
  }
  return *app;
}

inline std::string wrong_word(const CLI::App& app, const std::string& word) {
  if (word.starts_with("-")) {
    const auto name = word.substr(0, word.find('='));
    const auto bare = name.substr(std::min(name.find_first_not_of('-'), name.size()));
    const auto near = nearest_name(bare, options_of(app));
    return fmt::format("{}: there is no option {}{}", path_of(app), name, meant(near.empty() ? "" : "--" + near));
  }
  const auto commands = commands_of(app);
  if (commands.empty()) return fmt::format("{}: there is no place for the argument {}", path_of(app), word);
  const auto near = nearest_name(word, commands);
  return fmt::format("{}: there is no command {}{}", path_of(app), word,
                     near.empty() ? fmt::format("; commands: {}", fmt::join(commands, ", ")) : meant(near));
}

}  // namespace detail

/// `words`: the arguments as they were typed, without the program's name.
inline std::string usage_error(const CLI::App& root, const CLI::ParseError& error,
                               const std::vector<std::string>& words) {
  // A word that nothing took explains more than what is missing in consequence.
  for (const auto& left : root.remaining(/*recurse=*/true)) {
    if (left == "--") continue;
    const auto at = std::find(words.begin(), words.end(), left) - words.begin();
    return detail::wrong_word(detail::command_before(root, words, static_cast<std::size_t>(at)), left);
  }
  const auto& app = detail::command_before(root, words, words.size());
  if (dynamic_cast<const CLI::ArgumentMismatch*>(&error) != nullptr) {
    const std::string text = error.what();  // "--socket: 1 required TEXT missing"
    return fmt::format("{}: {} needs a value", detail::path_of(app), text.substr(0, text.find(':')));
  }
  if (dynamic_cast<const CLI::RequiredError*>(&error) != nullptr && detail::needs_command(app)) {
    return fmt::format("{}: no command was given; commands: {}", detail::path_of(app),
                       fmt::join(detail::commands_of(app), ", "));
  }
  return fmt::format("{}: {}", detail::path_of(app), error.what());
}

/// An option that takes a whole number.
inline CLI::Validator whole_number(int from, int to) {
  return CLI::Validator(
      [from, to](std::string& word) {
        int value = 0;
        const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value);
        const bool good = error == std::errc() && end == word.data() + word.size() && value >= from && value <= to;
        return good ? std::string() : fmt::format("{} is no whole number from {} to {}", word, from, to);
      },
      fmt::format("{} to {}", from, to));
}

}  // namespace kinfs::daemon
