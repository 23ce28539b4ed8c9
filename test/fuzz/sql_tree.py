"""SQL as a tree of texts that knows which of its parts can go.

    str                 text
    [a, b, ...]         one after the other
    Opt(a)              may be left out
    Items(", ", [...])  a list, each element of which may be left out
    Alt(a, b, ...)      a; b and so on are simpler and may stand for it
    Tagged(tag, a)      an element of Items that goes away together with all
                        others of its tag (a select item and its GROUP BY)

A reducer asks variants() for all trees that have one part less. Whether they
are still SQL is for the server to say.
"""


class Opt:
    def __init__(self, node):
        self.node = node


class Items:
    def __init__(self, separator, nodes, least=1):
        self.separator, self.nodes, self.least = separator, list(nodes), least


class Alt:
    def __init__(self, *choices):
        self.choices = choices


class Tagged:
    def __init__(self, tag, node):
        self.tag, self.node = tag, node


def text(node):
    """The SQL of a tree."""
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return "".join(text(part) for part in node)
    if isinstance(node, Items):
        return node.separator.join(text(part) for part in node.nodes)
    if isinstance(node, Alt):
        return text(node.choices[0])
    return text(node.node)


def variants(node):
    """All trees with one reduction, the largest steps first."""
    yield from _without_tags(node)
    yield from _variants(node)


def _without_tags(node):
    for tag in sorted(_tags(node)):
        yield _drop_tag(node, tag)


def _tags(node):
    if isinstance(node, str):
        return set()
    if isinstance(node, list):
        return set().union(*(_tags(part) for part in node)) if node else set()
    if isinstance(node, Items):
        return set().union(*(_tags(part) for part in node.nodes)) if node.nodes else set()
    if isinstance(node, Alt):
        return _tags(node.choices[0])
    return _tags(node.node) | ({node.tag} if isinstance(node, Tagged) else set())


def _drop_tag(node, tag):
    if isinstance(node, str):
        return node
    if isinstance(node, list):
        return [_drop_tag(part, tag) for part in node]
    if isinstance(node, Items):
        return Items(node.separator, [_drop_tag(part, tag) for part in node.nodes
                                      if not (isinstance(part, Tagged) and part.tag == tag)], node.least)
    if isinstance(node, Alt):
        return Alt(*(_drop_tag(choice, tag) for choice in node.choices))
    if isinstance(node, Tagged):
        return Tagged(node.tag, _drop_tag(node.node, tag))
    return Opt(_drop_tag(node.node, tag))


def _variants(node):
    if isinstance(node, str):
        return
    if isinstance(node, list):
        for i, part in enumerate(node):
            for smaller in _variants(part):
                yield node[:i] + [smaller] + node[i + 1:]
    elif isinstance(node, Opt):
        yield ""
        for smaller in _variants(node.node):
            yield Opt(smaller)
    elif isinstance(node, Items):
        if len(node.nodes) > node.least:
            for i, part in enumerate(node.nodes):
                if not isinstance(part, Tagged):
                    yield Items(node.separator, node.nodes[:i] + node.nodes[i + 1:], node.least)
        for i, part in enumerate(node.nodes):
            for smaller in _variants(part):
                yield Items(node.separator, node.nodes[:i] + [smaller] + node.nodes[i + 1:], node.least)
    elif isinstance(node, Alt):
        for choice in node.choices[1:]:
            yield choice
        for smaller in _variants(node.choices[0]):
            yield Alt(smaller, *node.choices[1:])
    elif isinstance(node, Tagged):
        for smaller in _variants(node.node):
            yield Tagged(node.tag, smaller)
