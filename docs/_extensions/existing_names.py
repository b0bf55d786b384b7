"""Names in docstrings and signatures that no page documents: shown as text if they exist, and a warning if not.

Docstrings name things as code does: by what their module can see, or by the end of the name where that is unique.
Pages document things where users import them from. So a name is looked up as Python would, and linked to wherever that
object is documented. Names of other libraries are text, so that the site is built without the network.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.nodes import make_refnode

MISSING = object()


def find(path: str) -> Any:
    """The object of a dotted path, of which as much is imported as can be; ``MISSING`` where there is none."""
    parts = path.split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:length]))
        except ImportError:
            continue
        for part in parts[length:]:
            fields = {name for cls in getattr(found, "__mro__", ()) for name in getattr(cls, "__annotations__", {})}
            found = getattr(found, part, None if part in fields else MISSING)
            if found is MISSING:
                break
        else:
            return found
    return MISSING


def scopes(node: addnodes.pending_xref) -> Iterator[str]:
    """Where a name may be meant: classes and modules around it, the module that defines what is described first."""
    parent: nodes.Node | None = node
    while parent is not None:
        if isinstance(parent, addnodes.desc):
            signature = parent.next_node(addnodes.desc_signature)
            path = f"{signature['module']}.{signature['fullname']}"
            described = find(path)
            yield path
            if hasattr(described, "__module__"):
                yield f"{described.__module__}.{getattr(described, '__qualname__', '')}".rstrip(".")
                yield described.__module__
        parent = parent.parent
    if node.get("py:module"):
        yield node["py:module"]
    yield "builtins"


def documented(env: BuildEnvironment) -> dict[str, str]:
    """Names as pages have them, by where the objects are defined."""
    if not hasattr(env, "_documented_by_definition"):
        names = {}
        for name in env.domains.python_domain.objects:
            found = find(name)
            # An alias such as Box = tuple[...] is not where tuple is documented.
            if hasattr(found, "__qualname__") and found.__module__.split(".")[0] == name.split(".")[0]:
                names[f"{found.__module__}.{found.__qualname__}"] = name
        env._documented_by_definition = names  # type: ignore[attr-defined]
    return env._documented_by_definition  # type: ignore[attr-defined, no-any-return]


def resolve(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element) -> nodes.Node | None:
    """Sphinx asks this for what it could not find itself; None is a warning."""
    if node["refdomain"] != "py":
        return None
    target = node["reftarget"]
    for path in (target, *(f"{scope}.{target}" for scope in scopes(node))):
        found = find(path)
        if found is not MISSING:
            break
    else:
        return unique(app, env, node, shown)
    definition = f"{getattr(found, '__module__', '')}.{getattr(found, '__qualname__', '')}"
    name = documented(env).get(definition, path)
    return link(app, env, node, shown, name) if name in env.domains.python_domain.objects else shown


def unique(app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element) -> nodes.Node | None:
    """A link to the one documented object whose name ends like that; None where none or several do."""
    ends = [name for name in env.domains.python_domain.objects if name.endswith(f".{node['reftarget']}")]
    return link(app, env, node, shown, ends[0]) if len(ends) == 1 else None


def link(
    app: Sphinx, env: BuildEnvironment, node: addnodes.pending_xref, shown: nodes.Element, name: str
) -> nodes.Node:
    assert app.builder is not None
    entry = env.domains.python_domain.objects[name]
    return make_refnode(app.builder, node["refdoc"], entry.docname, entry.node_id, shown, name)


def setup(app: Sphinx) -> dict[str, bool | str]:
    app.connect("missing-reference", resolve)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
