"""Find the faults of the LoRA part of a configuration: one small function per belief.

Each fault has the layers that right targets would have instead, so that one correction follows from all.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...domain.explaining.role_names import is_layer_name
from ...domain.layers import Layer
from ...domain.patterns import OPEN, pattern_of
from ...domain.vocabulary import count_layers, count_of, list_some
from ...references.knowledge import load
from ...similar_names import nearest
from ...training_configs import Named
from ...training_configs.config_checks import ConfigFinding
from .hits import Hits, find_leaves

_PARTS = {"head": "the output head", "moe.router": "gates of the experts"}
_FEED_FORWARD = ("mlp.", "expert.")


@dataclass(frozen=True)
class Fault:
    """A finding, with the layers to adapt beside the others, and the ones to leave alone.

    Attributes:
        saved: Modules to train in full.
    """

    finding: ConfigFinding
    added: tuple[Layer, ...] = ()
    dropped: tuple[Layer, ...] = ()
    saved: tuple[str, ...] = field(default=())


def find_faults(hits: Hits) -> Iterator[Fault]:
    """Yield the faults, target by target and then as a whole."""
    if hits.part.is_default:
        yield from _no_targets(hits)
    for target in hits.by_target:
        yield from _matches_nothing(hits, target)
        yield from _in_another_tower(hits, target)
        yield from _head_or_router(hits, target)
    yield from _blocks_are_missed(hits)
    yield from _experts_are_missed(hits)
    yield from _tokens_are_not_trained(hits)
    yield from _saved_is_unknown(hits)


def _no_targets(hits: Hits) -> Iterator[Fault]:
    """PEFT has a table of targets by model type, and raises an error for a type that is not in it."""
    architecture = hits.subject.detail.architecture
    if not architecture.has_peft_entry:
        message = (
            f"It names no targets, and PEFT has none for {architecture.reference}: the training ends with an error."
        )
        leaves = list_some(find_leaves(hits.subject.adaptable), 8)
        yield Fault(
            ConfigFinding("no-targets", "error", hits.part.line, message, f"Name layers such as {leaves}."),
            hits.subject.adaptable,
        )


def _matches_nothing(hits: Hits, target: Named) -> Iterator[Fault]:
    is_known = hits.anywhere[target] or target == hits.part.every
    if is_known or hits.reaches_deeper(target) or hits.may_be_absent(target):
        return
    earlier = [found for found in hits.subject.earlier if _is_matched(hits, target, found[0])]
    if earlier:
        yield _is_renamed(hits, target, earlier)
    elif as_name := hits.find_as_name(target):
        yield _is_misspelt(hits, target, as_name)
    else:
        yield _has_no_layer(hits, target)


def _is_renamed(hits: Hits, target: Named, earlier: list[tuple[str, str, str]]) -> Fault:
    """Return the fault of a target that has the name of another version: (pattern then, version, pattern now)."""
    first, version, _ = earlier[0]
    patterns = {now for _, known, now in earlier if known == version}
    layers = tuple(layer for layer in hits.subject.layers if pattern_of(layer.path) in patterns)
    message = f"{target.text!r} matches nothing in {hits.subject.label}: it is for {version}, whose {first} is"
    message += f" {earlier[0][2]} now."
    way_out = f"Name {list_some(find_leaves(layers), 8)}, or train with the earlier version."
    return Fault(ConfigFinding("renamed", "warning", target.line, message, way_out), layers)


def _is_misspelt(hits: Hits, target: Named, meant: list[Layer]) -> Fault:
    """Return the fault of a target that would match as a plain name."""
    text, names = target.text, list_some(find_leaves(meant))
    if target == hits.part.regex:
        why = "as a regex it must match whole paths"
        is_single = hits.part.project.single
        how = f"Write {names} with another name, as a single one is read as a regex" if is_single else ""
    else:
        around = text.replace(text.strip(" ,'\""), "") or "it"
        why, how = f"{around} is read as a part of the name", ""
    message = f"{text!r} matches no layer of {hits.subject.label}: {why}."
    way_out = f"{how or f'Write it as a name in a list: {names}'}."
    return Fault(ConfigFinding("nothing", "error", target.line, message, way_out), tuple(meant))


def _has_no_layer(hits: Hits, target: Named) -> Fault:
    """Return the fault of a target that is in no version of the model, with the likely names."""
    subject, text = hits.subject, target.text
    roles = subject.name_roles(text)
    meant = tuple(layer for layer in subject.adaptable if layer.role in roles)
    leaves = find_leaves(subject.adaptable)
    near = () if is_layer_name(text) else nearest(text.rpartition(".")[2], leaves, 1)
    if meant:
        way_out = f"Layers of its kind there: {list_some(find_leaves(meant), 6)}."
    elif near:
        way_out = f"Did you mean {near[0]!r}?"
        meant = tuple(layer for layer in subject.adaptable if find_leaves([layer]) == (near[0],))
    else:
        way_out = f"Leave it out: the model has no such layer. There are {list_some(leaves, 8)}."
    message = f"{text!r} matches no layer of {subject.label}."
    return Fault(ConfigFinding("nothing", "error", target.line, message, way_out), meant)


def _is_matched(hits: Hits, target: Named, pattern: str) -> bool:
    matcher = hits.matcher(target.text if target == hits.part.regex else (target.text,))
    return matcher.find(pattern.replace(OPEN, "0")) is not None


def _in_another_tower(hits: Hits, target: Named) -> Iterator[Fault]:
    """A name may be that of layers in two towers; that it matches a part of one of them is by accident.

    Who adapts all attention or all of a tower, or nothing else, has chosen the tower.
    """
    layers, label = hits.by_target[target], hits.subject.label
    if not layers:
        yield from _only_frozen(hits, target)
        return
    away = [x for x in layers if x.tower not in hits.subject.home]
    if not away or _is_chosen(hits, target) or not _is_accident(hits, away):
        return
    if len(away) < len(layers) and _may_be_text(hits):
        return
    towers, count = ", ".join(dict.fromkeys(x.tower for x in away)), count_layers(len(away))
    if len(away) == len(layers):
        message = f"{target.text!r} matches only the {towers} tower ({count}) of {label}."
        home = " and ".join(sorted(hits.subject.home))
        way_out = f"Leave it out; the {home} tower has {list_some(find_leaves(hits.subject.adaptable), 8)}."
    else:
        message = f"{target.text!r} also matches {count} of the {towers} tower of {label}, whose others are left out."
        way_out = "Name the path of the tower that is meant."
    code = "tower" if len(away) == len(layers) else "stray"
    yield Fault(ConfigFinding(code, "warning", target.line, message, way_out), dropped=tuple(away))


def _only_frozen(hits: Hits, target: Named) -> Iterator[Fault]:
    towers = ", ".join(dict.fromkeys(x.tower for x in hits.anywhere[target] if x.tower in hits.frozen))
    if towers and target != hits.part.every:
        message = f"{target.text!r} matches only layers of the {towers} tower, which this configuration leaves alone."
        yield Fault(ConfigFinding("tower", "error", target.line, message, "Leave it out, or train that tower."))


def _is_chosen(hits: Hits, target: Named) -> bool:
    """Return whether a target is for another tower on purpose: it names paths, or no target is for the model's own."""
    part, home = hits.part, hits.subject.home
    has_home = any(layer.tower in home for layer in hits.layers.values())
    return target in {part.regex, part.every} or bool(part.roles) or not has_home


def _may_be_text(hits: Hits) -> bool:
    """Return whether a guessed model may be one of text alone, where that is a type of its own."""
    return hits.subject.is_guess and f"{hits.subject.detail.architecture.reference}_text" in load().names


def _is_accident(hits: Hits, away: list[Layer]) -> bool:
    """Return whether the roles that are reached in another tower are not all of its attention."""
    towers = {x.tower for x in away}
    reached = {x.role for x in hits.layers.values() if x.tower in towers}
    every = {x.role for x in hits.subject.layers if x.tower in towers and x.depth and x.role.startswith("attention.")}
    return not every or not every <= reached


def _head_or_router(hits: Hits, target: Named) -> Iterator[Fault]:
    for role, part in _PARTS.items():
        layers = [x for x in hits.by_target[target] if x.role == role]
        if not layers or (role == "head" and target == hits.part.every):  # the head of another task's class
            continue
        names = list_some(find_leaves(layers))
        meant = f"{target.text!r} matches"
        message = f"{meant} {part} in {hits.subject.label}: {names} ({count_layers(len(layers))})."
        why = {
            "head": "It is as wide as the vocabulary: train it in full with modules_to_save, or leave it out.",
            "moe.router": "Trained on little data it may unbalance the experts; leave it out if that is not meant.",
        }
        yield Fault(
            ConfigFinding(role.rpartition(".")[2], "warning", target.line, message, why[role]), dropped=tuple(layers)
        )


def _blocks_are_missed(hits: Hits) -> Iterator[Fault]:
    """A hybrid has attention in a few of its blocks; targets for attention alone leave out the others."""
    subject, part = hits.subject, hits.part
    if part.blocks or hits.names_blocks or not hits.layers:
        return
    every = {x.block for x in subject.adaptable if x.block}
    reached = {x.block for x in hits.layers.values()} & every
    if not reached or 2 * len(reached) >= len(every):
        return
    missed = [x for x in subject.adaptable if x.block in every - reached]
    kinds = {role.partition(".")[0] for role in (x.role for x in hits.layers.values())}
    wanted = [x for x in missed if x.role.partition(".")[0] in (kinds | {"mixer"})] or missed
    roles = list_some([f"{role} ({count})" for role, count in Counter(x.role for x in missed).most_common()])
    message = (
        f"The targets reach {len(reached)} of {count_of(len(every), 'block')} of {subject.label} as it is by default"
    )
    way_out = f"Add {list_some(find_leaves(wanted), 6)}."
    text = f"{message}; the others hold {roles}."
    yield Fault(ConfigFinding("blocks", "warning", part.target_line, text, way_out), tuple(wanted))


def _experts_are_missed(hits: Hits) -> Iterator[Fault]:
    """Experts are parameters since transformers 5: names of linear layers, and 'every linear layer', pass them by."""
    subject, project = hits.subject, hits.part.project
    experts = tuple(x for x in subject.layers if x.role.startswith("expert.") and x.tower in subject.home)
    is_reached = any(x.role.startswith("expert.") for x in hits.layers.values())
    if not experts or is_reached or not _means_experts(hits):
        return
    names = list_some(dict.fromkeys(".".join(x.path.split(".")[-2:]) for x in experts))
    message = f"The targets leave out the experts of {subject.label}: {names} ({count_layers(len(experts))})."
    way_out = f"Name them in {project.parameters}."
    if all(x.kind != "expert_parameter" for x in experts):
        way_out = "Name them among the targets."
    elif not project.parameters:
        way_out = f"{project.name} has no key for parameters: they are not trained with it."
    yield Fault(ConfigFinding("experts", "warning", hits.part.target_line, message, way_out), experts)


def _means_experts(hits: Hits) -> bool:
    """Return whether the targets are for the feed-forward networks as a whole, by their names or by what they match."""
    part = hits.part
    texts = [name.text for name in (*part.names, *filter(None, [part.regex]))]
    if part.has_own_experts or part.is_default or any("shared" in text for text in texts):
        return False
    roles = {role for text in texts for role in hits.subject.name_roles(text)}
    roles |= {layer.role for layer in hits.layers.values()}
    return part.every is not None or any(role.startswith(_FEED_FORWARD) for role in roles)


def _tokens_are_not_trained(hits: Hits) -> Iterator[Fault]:
    """New tokens have random embeddings: an adapter on other layers does not train them."""
    part, subject = hits.part, hits.subject
    tables = [
        x for x in subject.layers if x.role in {"embedding.token", "head"} and x.tower in (subject.home or {x.tower})
    ]
    names = find_leaves(tables)
    saved = {name.text.rpartition(".")[2] for name in part.saved}
    is_trained = any(x.role == "embedding.token" for x in hits.layers.values())
    if part.tokens is None or not names or saved & {*names} or is_trained or saved & {"all-embedding"}:
        return
    message = (
        f"{part.tokens.text} adds tokens, and neither {' nor '.join(names)} is trained: their embeddings stay random."
    )
    key = part.project.saved or "modules_to_save"
    way_out = f"Name {', '.join(names)} in {key}."
    yield Fault(ConfigFinding("tokens", "error", part.tokens.line, message, way_out), saved=names)


def _saved_is_unknown(hits: Hits) -> Iterator[Fault]:
    """The names of embeddings and heads differ: a module to save that is not there is not trained."""
    subject = hits.subject
    modules = {segment for path in subject.stored.modules for segment in path.split(".")}
    tables = [x for x in subject.layers if x.role in {"embedding.token", "head"}]
    for name in hits.part.saved:
        leaf = name.text.rpartition(".")[2]
        if leaf in modules or leaf not in _TABLES or subject.is_guess:
            continue
        meant = find_leaves(tables)
        message = f"{name.text!r}, to be trained in full, is no module of {subject.label}."
        way_out = f"Its embeddings and head are {', '.join(meant)}." if meant else "Leave it out."
        yield Fault(ConfigFinding("saved", "error", name.line, message, way_out), saved=meant)


_TABLES = {
    "embed_tokens",
    "lm_head",
    "wte",
    "embed_in",
    "embed_out",
    "word_embeddings",
    "tok_embeddings",
    "output_layer",
}
"""Names of embeddings and heads in some architectures; heads of other tasks are not in the scans."""
