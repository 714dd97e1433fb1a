"""docs/peers.md is made from the rows."""

import pathlib

import peer

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "peers.md"


def test_the_page_is_made_from_the_tables():
    assert PAGE.read_text() == peer.page(), "run `python tests/peers/peer.py > docs/peers.md`"


def test_no_pair_stands_twice():
    for rows in peer.tables().values():
        pairs = [(row.ours, row.theirs) for row in rows]
        assert len(set(pairs)) == len(pairs)
