"""Runs inside the sandbox: runs tests that cannot become inputs and outputs, out of the tested program's reach.

The program is in another process, in its own namespaces. Here its names are stand-ins (`standin`). This process
decides the results; the tested program has no influence on it.
"""

# pyright: basic
import ast
import json
import random

import channel
import checks
import classes
import derived
import judge
import mocks
import planner
import program
import pytest_run
import shared
import standin


def main():
    """Read `request.json`, run its tests, and write one frame: for each test if it passed, and why not."""
    with open("request.json", "rb") as file:
        request = json.load(file)
    random.seed(0)
    lines = []

    def line_for(flow, trees):
        if not request.get("shared") and (found := mocks.out_of_reach(trees)):
            raise standin.TestsAtFault(MOCKED.format(found))
        lines.append(shared.Here(request) if request.get("shared") else channel.Line(classes.classes(flow)))
        lines[0].called = {
            checks.last_name(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Call)
        }
        lines[0].read_there = {
            node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)
        }
        return lines[0]

    try:
        answer = (pytest_run.run_file if "file" in request else run_tests)(request, line_for)
    except BaseException as error:
        told = str(error) if isinstance(error, standin.TestsAtFault) else program.describe(error)
        found = judge.failure(error, lines[0], 0) if lines else {"fault": told}
        answer = {"fault": found["fault"]} if "fault" in found else {"load": found["why"]}
    program.answer(answer)


MOCKED = (
    "they replace {}, which the program has in a process of its own; the option process=shared runs both in one,"
    " where a program can forge its verdict"
)


def run_tests(request, line_for):
    """Run `request["tests"]`, the sources of tests that are run unchanged."""
    names = planner.program_names(request)
    trees = [ast.parse(request.get("setup") or ""), *map(ast.parse, request["tests"])]
    if not any(map(checks.has_check, trees)):
        return {"fault": "they contain no comparison that the program could fail"}
    flow = checks.Flow(trees, names)
    setup = ast.unparse(checks.instrumented(ast.parse(request.get("setup") or ""), flow))
    made = checks.Checks()
    given = {"__checks__": made, "__stopped__": standin.StoppedByProgram, "__derive__": derived}
    sources = [request.get("prelude", ""), *([] if request["late_setup"] else [setup])]
    space = planner.new_space(sources, request, given)
    line = line_for(flow, trees)
    line.checks = made
    space["__run_there__"] = line.run_there
    line.know({name: space[name] for name in request["classes"]})
    if request.get("strict"):
        line.keep_methods()
    line.ready()
    bring_in(names, space, line)
    if request["late_setup"]:
        exec(compile(setup, "setup.py", "exec"), space)
    return {"results": [run(source, space, request, line, names) for source in request["tests"]]}


def bring_in(names, space, line):
    """Add the program's names to the tests' namespace, as far as the program defines them."""
    for name in names:
        try:
            space[name] = line.named(name)
            line.globals_found.append(name)
        except AttributeError:
            continue


def run(source, space, request, line, names):
    """Run one test; return if it passed, if it compared something, and what went wrong."""
    setup = ast.parse(request.get("setup") or "")
    flow = checks.Flow([setup, ast.parse(source)], names)
    code = compile(checks.instrumented(ast.parse(source), flow), "tests.py", "exec")

    def once():
        exec(code, space)
        if request.get("check"):
            if request["entry_point"] not in space:
                raise standin.marked(standin.RaisedByProgram(f"the program does not define {request['entry_point']}"))
            space[request["check"]](space[request["entry_point"]])

    functions = {node.name: node for node in setup.body if isinstance(node, (ast.FunctionDef, ast.ClassDef))}
    return judge.held(once, line, checks.reachable(ast.parse(source), functions), flow)
