#!/usr/bin/env python3
"""The style of this repository, as a test.

    tests/tidy.py [ROOT]        check the tree; one line a finding, exit 1 when there is one
    tests/tidy.py --self-test   plant each offence in a tree of its own and see that it is found

What it holds: lengths of lines, files and functions; calls that are banned, with what to use instead; that each
third-party library is included by its one adapter; that no file is dead; that the files and symbols that
kinfs-internals(7) names are there. It reads C++ by its own small scanner (comments and strings blanked, braces
counted): no compiler is needed, and a construct it cannot name is never reported as a function.

A line that must break a rule says so at its end: `tidy: allow NAME, reason` (in a comment).
"""
import ast
import os
import re
import sys
import tempfile

MAX_LINE, MAX_FILE, MAX_FUNCTION = 120, 800, 70

CXX = (".cc", ".h")
SOURCE = CXX + (".proto", ".py", ".cmake", ".sh", ".json", ".toml")

# name -> (pattern in code, where it applies, what to use instead)
EVERYWHERE = lambda path: path.endswith(CXX)
IN_TESTS = lambda path: path.endswith(CXX) and path.startswith("tests/")
BANNED_CXX = {
    "sleep": (r"\b(sleep_for|sleep_until|usleep|nanosleep|sleep)\s*\(", IN_TESTS,
              "wait for a condition with a deadline"),
    "system": (r"(?<![\w.>])(?:std::)?system\s*\(", EVERYWHERE, "posix_spawn or fork and execv, without a shell"),
    "strcpy": (r"\b(strcpy|strcat|gets)\s*\(", EVERYWHERE, "std::string, or memcpy with a size"),
    "sprintf": (r"\bv?sprintf\s*\(", EVERYWHERE, "fmt::format"),
    "rand": (r"(?<![\w.>])(?:std::)?s?rand\s*\(", EVERYWHERE, "<random>, seeded by the caller"),
    "detach": (r"(?:\.|->)detach\s*\(\s*\)", EVERYWHERE, "a thread that its owner joins"),
    "using-namespace": (r"\busing\s+namespace\s+std\b", EVERYWHERE, "std:: where it is used"),
}
BANNED_SCRIPT = {
    "pkill": (r"(?<![\w/-])(pkill|killall)\b", "kill with the pid of the process that you started"),
}
# A Python test polls in one place only.
PYTHON_SLEEP = ("sleep", r"\btime\.sleep\s*\(", "tests/e2e/lab.py", "wait_until() of tests/e2e/lab.py")

ADAPTERS = {  # start of an include -> the files that may
    "rocksdb/": {"storage/rocks_store.cc", "tests/bench/block_bench.cc"},
    "zmq": {"cluster/zmq_socket.cc"},
    "fuse": {"fs/fuse_ops.cc"},
    "cryptopp/": {"storage/bytes.cc"},
    "systemd/": {"daemon/notify.cc"},
    "crypto++/": {"storage/bytes.cc"},
}

# Spelled in halves, so that this file does not hold them. The text of the repository speaks of kinfs alone.
FORBIDDEN = ["design" + ".md", "/wo" + "rk/", "session " + "ended by", "the " + "brief", "issues " + "show",
             "TO" + "DO", "FIX" + "ME", "XX" + "X:"]


class Tree:
    """All text files below a root, read once."""

    def __init__(self, root):
        self.root, self.text, self.findings = root, {}, []
        for folder, folders, names in os.walk(root):
            folders[:] = sorted(f for f in folders if f not in (".git", ".cache", "__pycache__") and
                                not (folder == root and f.startswith("build")))
            for name in sorted(names):
                path = os.path.join(folder, name)
                if os.path.islink(path) or name.endswith((".pyc", ".swp")):
                    continue
                data = open(path, "rb").read()
                if b"\0" not in data:
                    self.text[os.path.relpath(path, root)] = data.decode("utf-8", "replace")

    def report(self, path, line, rule, words):
        lines = self.text.get(path, "").split("\n")
        if line and f"tidy: allow {rule}," in lines[line - 1]:
            return
        self.findings.append((path, line, rule, words))


def is_script(path, text):
    return text.startswith("#!") and not path.endswith(".py")


def blank(text):
    """C++ with comments, string and character literals turned into spaces; lines stay where they are."""
    pattern = re.compile(r'//[^\n]*|/\*.*?\*/|R"([^()\\\s]{0,16})\(.*?\)\1"|"(?:\\.|[^"\\\n])*"|'
                         r"(?<![0-9A-Fa-f])'(?:\\.|[^'\\\n])+'", re.S)
    return pattern.sub(lambda m: re.sub(r"[^\n]", " ", m.group()), text)


TYPE_HEAD = re.compile(r"^\s*(?:template\s*<.*>\s*)?(?:typedef\s+)?(?:class|struct|union|enum)\b", re.S)
CONTROL = re.compile(r"^\s*(?:if|for|while|switch|do|else|try|catch)\b")


def functions(text):
    """(first line, last line, name) of each function of a C++ text whose body opens outside of any function."""
    code = re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()), blank(text),
                  flags=re.M)
    stack, found, start = [], [], 0  # stack of (kind, first line, name)
    for at, c in enumerate(code):
        if c == ";" and not (stack and stack[-1][0] == "function"):
            start = at + 1
        elif c == "{":
            head, inside = code[start:at], any(kind == "function" for kind, _, _ in stack)
            kind, name = "block", ""
            if not inside:
                plain = re.sub(r"operator\s*[=!<>+\-*/|&^~%\[\]()]+(?=\s*\()", "operator_", head)
                call = re.search(r"([\w:~]+)\s*\(", plain)
                if re.match(r"^\s*(?:inline\s+)?namespace\b|^\s*extern\s+\S*\s*$", plain) or TYPE_HEAD.match(plain):
                    kind = "scope"
                elif call and not re.search(r"(?<![=!<>])=(?!=)[^()]*$", plain.split("(")[0]) and \
                        not CONTROL.match(plain):
                    first = start + len(head) - len(head.lstrip())
                    kind, name, start = "function", call.group(1), first
            stack.append((kind, code.count("\n", 0, start if kind == "function" else at) + 1, name))
            start = at + 1
        elif c == "}" and stack:
            kind, first, name = stack.pop()
            if kind == "function":
                found.append((first, code.count("\n", 0, at) + 1, name))
            start = at + 1
    return found


def shell_functions(text):
    found, lines = [], text.split("\n")
    for number, line in enumerate(lines, 1):
        opened = re.match(r"^(\w+)\s*\(\)\s*\{\s*$", line)
        if opened:
            end = next((n for n, l in enumerate(lines[number:], number + 1) if l.startswith("}")), len(lines))
            found.append((number, end, opened.group(1)))
    return found


def python_functions(text):
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    return [(n.lineno, n.end_lineno, n.name) for n in ast.walk(ast.parse(text)) if isinstance(n, kinds)]


def check_lengths(tree):
    for path, text in tree.text.items():
        script = is_script(path, text)
        if not (path.endswith(SOURCE) or path.endswith("CMakeLists.txt") or script):
            continue
        lines = text.split("\n")
        for number, line in enumerate(lines, 1):
            if len(line) > MAX_LINE:
                tree.report(path, number, "line-length", f"{len(line)} columns, at most {MAX_LINE}: break it")
        if len(lines) - 1 > MAX_FILE:
            tree.report(path, 0, "file-length", f"{len(lines) - 1} lines, at most {MAX_FILE}: it is two files")
        scan = functions if path.endswith(CXX) else python_functions if path.endswith(".py") else \
            shell_functions if script else None
        for first, last, name in scan(text) if scan else []:
            if last - first + 1 > MAX_FUNCTION:
                tree.report(path, first, "function-length",
                            f"{name} has {last - first + 1} lines, at most {MAX_FUNCTION}: it is two functions")


def check_text(tree):
    for path, text in tree.text.items():
        if path == "LICENSE":
            continue
        for number, line in enumerate(text.split("\n"), 1):
            if line != line.rstrip():
                tree.report(path, number, "trailing-space", "white space at the end of the line")
            for word in FORBIDDEN:
                if word in line:
                    tree.report(path, number, "forbidden-word", f"'{word}' does not belong into the repository")
        if text and not text.endswith("\n"):
            tree.report(path, text.count("\n") + 1, "final-newline", "the last line has no end")


def check_banned(tree):
    for path, text in tree.text.items():
        if path == "tests/tidy.py":
            continue
        if path.endswith(CXX):
            for number, line in enumerate(blank(text).split("\n"), 1):
                for rule, (pattern, applies, instead) in BANNED_CXX.items():
                    if applies(path) and (hit := re.search(pattern, line)):
                        tree.report(path, number, rule, f"{hit.group().strip()} is banned: use {instead}")
        elif path.endswith((".py", ".sh")) or is_script(path, text):
            for number, line in enumerate(text.split("\n"), 1):
                for rule, (pattern, instead) in BANNED_SCRIPT.items():
                    if re.search(pattern, line.split("#")[0]):
                        tree.report(path, number, rule, f"banned: use {instead}")
                rule, pattern, home, instead = PYTHON_SLEEP
                if path.endswith(".py") and path != home and re.search(pattern, line.split("#")[0]):
                    tree.report(path, number, rule, f"banned: use {instead}")


def includes(text):
    for number, line in enumerate(text.split("\n"), 1):
        if hit := re.match(r'\s*#\s*include\s*[<"]([^">]+)[">]', line):
            yield number, hit.group(1)


def check_adapters(tree):
    for path, text in tree.text.items():
        for number, header in includes(text) if path.endswith(CXX) else []:
            for prefix, homes in ADAPTERS.items():
                if header.startswith(prefix) and path not in homes:
                    tree.report(path, number, "adapter", f"<{header}> belongs to {' and '.join(sorted(homes))} alone")


def check_dead(tree):
    included = {h for p, t in tree.text.items() if p.endswith(CXX) for _, h in includes(t)}
    for path in tree.text:
        folder, name = os.path.split(path)
        stem = re.sub(r"\.(cc|proto|py)$", "", name)
        if path.endswith(".h"):
            if not any(path == h or path.endswith("/" + h) for h in included):
                tree.report(path, 0, "dead-file", "nobody includes it: remove it")
        elif path.endswith((".cc", ".proto")) or (path.endswith(".py") and path.startswith("tests/e2e/")):
            words, at = "", folder
            while True:  # the lists of this folder and of those above it
                words += tree.text.get(os.path.join(at, "CMakeLists.txt"), "")
                if not at:
                    break
                at = os.path.dirname(at)
            names = {name, stem, re.sub(r"_test$", "", stem)}
            # Or another folder's list, which names this folder with it.
            elsewhere = os.path.join(os.path.basename(folder), name)
            if any(p.endswith("CMakeLists.txt") and elsewhere in t for p, t in tree.text.items()):
                continue
            imported = path.endswith(".py") and any(
                re.search(rf"^\s*(?:from|import)\s+{re.escape(stem)}\b", t, re.M)
                for p, t in tree.text.items() if p.endswith(".py") and p != path)
            if not imported and not any(re.search(rf"(?<![\w.]){re.escape(n)}(?![\w.])", words) for n in names):
                tree.report(path, 0, "dead-file", "no CMakeLists.txt names it: add it there or remove it")


def check_manual(tree):
    path = "man/kinfs-internals.7"
    if path not in tree.text:
        return
    code = "\n".join(t for p, t in tree.text.items() if p.endswith(CXX + (".proto",)))
    words = set(re.findall(r"\w+", code))
    folders = {p.split("/")[0] for p in tree.text if "/" in p}
    for number, line in enumerate(tree.text[path].split("\n"), 1):
        if not line.startswith("."):
            continue
        for macro, rest in re.findall(r"(?:^\.|\s)(Fn|Vt|Va|Pa)\s+((?:\"[^\"]*\"|\S+))", line):
            name = rest.strip('"').rstrip(".,;:)")
            if macro == "Pa":
                if name.split("/")[0] in folders and not name.startswith("/") and \
                        name.rstrip("/") not in tree.text and \
                        not any(p.startswith(name.rstrip("/") + "/") for p in tree.text):
                    tree.report(path, number, "manual", f"there is no file {name}")
            elif missing := [w for w in re.findall(r"\w+", name) if w not in words]:
                tree.report(path, number, "manual", f"nothing in the code is called {missing[0]} (in {name})")


CHECKS = (check_lengths, check_text, check_banned, check_adapters, check_dead, check_manual)


def findings_of(root):
    tree = Tree(root)
    for check in CHECKS:
        check(tree)
    return sorted(tree.findings)


# --- the test of the test ---

CLEAN = {
    "storage/CMakeLists.txt": "add_library(s a.cc)\n",
    "storage/a.h": "#pragma once\nint f();\n",
    "storage/a.cc": '#include "storage/a.h"\n\n// system("x") in a comment; sleep_for(1)\nconst char* k = "rand()";\n'
                    "struct S {\n  void detach();\n};\nint f() { return 1'000; }\n",
    "tests/e2e/CMakeLists.txt": "add_test(NAME t COMMAND t.py)\n",
    "tests/e2e/t.py": "def f():\n    return 1\n",
    "man/kinfs-internals.7": ".Dd today\n.Fn f\n.Pa storage/a.cc\n",
}


def long_function(head):
    return head + " {\n" + "  x();\n" * 70 + "}\n"


PLANTS = [  # rule, path, text added (or a function of the old text)
    ("line-length", "storage/a.cc", "// " + "x" * 120 + "\n"),
    ("file-length", "storage/a.cc", "int v;\n" * 800),
    ("function-length", "storage/a.cc", long_function("int S::g(int a, int b) const")),
    ("function-length", "storage/a.cc", long_function("namespace n {\nclass C {\n  C() : a_{1}, b_(2)") + "};\n}\n"),
    ("function-length", "storage/a.cc", long_function("template <class T>\nbool operator==(const T& a, const T& b)")),
    ("function-length", "storage/a.cc", long_function("TEST(Suite, name)")),
    ("function-length", "tests/e2e/t.py", "def g():\n" + "    f()\n" * 70),
    ("function-length", "tests/go.sh", "#!/bin/bash\ngo() {\n" + "  x\n" * 70 + "}\n"),
    ("trailing-space", "storage/a.cc", "int v; \n"),
    ("final-newline", "storage/a.cc", "int v;"),
    ("system", "storage/a.cc", 'int g() { return std::system("x"); }\n'),
    ("strcpy", "storage/a.cc", "void g(char* a) { strcpy(a, a); }\n"),
    ("sprintf", "storage/a.cc", 'void g(char* a) { sprintf(a, "x"); }\n'),
    ("rand", "storage/a.cc", "int g() { return rand(); }\n"),
    ("detach", "storage/a.cc", "void g(T t) { t.detach(); }\n"),
    ("using-namespace", "storage/a.cc", "using namespace std;\n"),
    ("sleep", "tests/b_test.cc", "void g() { std::this_thread::sleep_for(t); }\n"),
    ("sleep", "tests/e2e/t.py", "time.sleep(1)\n"),
    ("pkill", "tests/e2e/t.py", "run(['pkill', 'x'])\n"),
    ("pkill", "packaging/quick", "#!/bin/bash\nkillall kinfsd\n"),
    ("adapter", "storage/a.cc", "#include <rocksdb/db.h>\n"),
    ("adapter", "storage/a.cc", "#include <zmq.hpp>\n"),
    ("adapter", "storage/a.cc", "#include <fuse3/fuse_lowlevel.h>\n"),
    ("adapter", "storage/a.cc", "#include <cryptopp/sha.h>\n"),
    ("dead-file", "storage/b.cc", "int v;\n"),
    ("dead-file", "storage/b.h", "int v;\n"),
    ("dead-file", "tests/e2e/u.py", "pass\n"),
    ("manual", "man/kinfs-internals.7", ".Fn gone\n"),
    ("manual", "man/kinfs-internals.7", "text\n.Pa storage/gone.cc .\n"),
] + [("forbidden-word", "README.md", f"See {word} there.\n") for word in FORBIDDEN]


def self_test():
    def findings_with(changes):
        with tempfile.TemporaryDirectory() as root:
            for path, text in {**CLEAN, **changes}.items():
                os.makedirs(os.path.dirname(os.path.join(root, path)) or root, exist_ok=True)
                with open(os.path.join(root, path), "w") as out:
                    out.write(text)
            return findings_of(root)

    failures = []
    if clean := findings_with({}):
        failures.append(f"the clean tree is not: {clean}")
    for rule, path, text in PLANTS:
        changes = {path: CLEAN.get(path, "") + text}
        if path == "tests/b_test.cc":
            changes["tests/CMakeLists.txt"] = "add_executable(b_test b_test.cc)\n"
        got = findings_with(changes)
        if {r for _, _, r, _ in got} != {rule} or {p for p, _, _, _ in got} != {path}:
            failures.append(f"planted {rule} in {path}: {text[:40]!r}, found {got}")
    allowed = "void g(T t) { t.detach(); }  // tidy: allow detach, the test of the test\n"
    if got := findings_with({"storage/a.cc": CLEAN["storage/a.cc"] + allowed}):
        failures.append(f"an allowed line was reported: {got}")
    for failure in failures:
        print("tidy: self-test:", failure)
    print(f"tidy: self-test: {len(PLANTS)} offences planted, {len(failures)} failures")
    return 1 if failures else 0


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if len(arguments) > 1 or (arguments and arguments[0].startswith("-")):
        print("usage: tests/tidy.py [--self-test | ROOT]", file=sys.stderr)
        return 2
    root = arguments[0] if arguments else os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    findings = findings_of(root)
    for path, line, rule, words in findings:
        print(f"{path}:{line}: {rule}: {words}" if line else f"{path}: {rule}: {words}")
    print(f"tidy: {len(findings)} finding{'s' if len(findings) != 1 else ''}")
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
