"""One pass over a tree or a pair of traversals each, compiled by Numba. Meaning: trees.py and its siblings.

Links are int32 [n], -1 = none. Where a kernel needs no other numbering, nodes are numbered in preorder:
then a left child is the next number, a subtree is a slice, and children come after their parents.
"""

import numpy as np
from numba import njit

SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: Knuth, TAOCP vol. 3, 6.4
HALF = np.uint64(32)


# ---------------------------------------------------------------------- labels
@njit(cache=True)
def extent_kernel(labels):
    """(least, largest) of at least one label."""
    low = high = labels[0]
    for label in labels:
        low = min(low, label)
        high = max(high, label)
    return low, high


@njit(cache=True)
def repeated_kernel(labels, low, words):
    """Index of the first label that came before, -1 if none; words: one zero bit per possible label."""
    for i in range(len(labels)):
        place = np.uint64(labels[i] - low)
        word = place >> np.uint64(6)
        bit = np.uint64(1) << (place & np.uint64(63))
        if words[word] & bit:
            return i
        words[word] |= bit
    return -1


@njit(cache=True)
def table_kernel(labels, low, table):
    """Fill a table over a dense range, table[label - low] = index; as repeated_kernel."""
    table[:] = -1
    for i in range(len(labels)):
        if table[labels[i] - low] >= 0:
            return i
        table[labels[i] - low] = i
    return -1


@njit(cache=True)
def table_positions_kernel(low, table, others, out):
    """out[j]: the index of others[j] among the labels of the table, -1 if it is not there."""
    for j in range(len(others)):
        label = np.int64(others[j])
        out[j] = table[label - low] if low <= label < low + len(table) else -1


@njit(cache=True)
def _slot(label, table):
    mixed = np.uint64(label) * SPREAD
    return np.int64((mixed ^ (mixed >> HALF)) & np.uint64(len(table) - 1))


@njit(cache=True)
def hash_kernel(labels, table):
    """Fill a table (size a power of 2, at least twice the labels); as repeated_kernel."""
    table[:] = -1
    for i in range(len(labels)):
        slot = _slot(labels[i], table)
        while table[slot] >= 0:
            if labels[table[slot]] == labels[i]:
                return i
            slot = (slot + 1) & (len(table) - 1)
        table[slot] = i
    return -1


@njit(cache=True)
def hashed_positions_kernel(labels, table, others, out):
    """As table_positions_kernel, from a table that hash_kernel filled."""
    for j in range(len(others)):
        slot = _slot(others[j], table)
        while table[slot] >= 0 and labels[table[slot]] != others[j]:
            slot = (slot + 1) & (len(table) - 1)
        out[j] = table[slot]


# ---------------------------------------------------------------------- building
@njit(cache=True)
def grow_kernel(pre, ino, left, right, stack):
    """Links of the tree with this preorder and inorder; False if there is none. Labels are compared only.

    The stack holds the nodes that inorder has not passed. Whoever stands on top and is next in
    inorder must leave before anything else is pushed, and the next node in preorder is then the right
    child of the last one that left; if nobody leaves, it is the left child of the top.
    """
    n, depth, j = len(pre), 0, 0
    for i in range(n):
        last = -1
        while depth > 0 and pre[stack[depth - 1]] == ino[j]:
            depth -= 1
            last = stack[depth]
            j += 1
        if last >= 0:
            right[last] = i
        elif i > 0:
            left[i - 1] = i
        left[i] = right[i] = -1
        stack[depth] = i
        depth += 1
    while depth > 0 and pre[stack[depth - 1]] == ino[j]:
        depth -= 1
        j += 1
    return depth == 0


@njit(cache=True)
def cartesian_kernel(keys, left, right, stack):
    """The tree that has keys 0..n-1 as inorder and every parent before its children; nodes are keys."""
    depth = 0
    for key in keys:
        last = -1
        while depth > 0 and stack[depth - 1] > key:
            depth -= 1
            last = stack[depth]
        left[key], right[key] = last, -1
        if depth > 0:
            right[stack[depth - 1]] = key
        stack[depth] = key
        depth += 1


@njit(cache=True)
def search_tree_kernel(keys, left, right, stack):
    """Links of the search tree with this preorder, and (-1, -1); or (i, j): key i can not follow key j."""
    depth, floor = 0, -1
    for i in range(len(keys)):
        last = -1
        while depth > 0 and keys[stack[depth - 1]] < keys[i]:
            depth -= 1
            last = floor = stack[depth]
        if depth > 0 and keys[stack[depth - 1]] == keys[i]:
            return i, stack[depth - 1]
        if floor >= 0 and keys[i] <= keys[floor]:  # left of a node whose left part was complete
            return i, floor
        if last >= 0:
            right[last] = i
        elif i > 0:
            left[i - 1] = i
        left[i] = right[i] = -1
        stack[depth] = i
        depth += 1
    return -1, -1


@njit(cache=True)
def marked_preorder_kernel(present, left, right):
    """(entries read, children still open) of a preorder with null markers; stops when it is complete."""
    top, last, open_children, count = -1, -1, 1, 0
    for t in range(len(present)):
        if open_children == 0:
            return t, 0
        if not present[t]:
            open_children -= 1
            if last >= 0:
                last = -1  # no left child: the next entry is the right one
            elif top >= 0:
                below = right[top]
                right[top] = -1
                top = below
            continue
        open_children += 1
        if last >= 0:
            left[last] = count
        elif top >= 0:
            below = right[top]
            right[top] = count
            top = below
        # nodes whose right child is open form a stack, linked through that very field
        left[count], right[count] = -1, top
        top = last = count
        count += 1
    return len(present), open_children


# ---------------------------------------------------------------------- numbering
@njit(cache=True)
def renumber_kernel(left, right, root, new_left, new_right, order):
    """The same tree in preorder numbers; order[i]: what node i was called. Returns how many were reached."""
    n = len(left)
    stack, depth = np.empty(n, np.int32), 0
    node = root
    for i in range(n):
        order[i] = node
        new_left[i] = i + 1 if left[node] >= 0 else -1
        new_right[i] = -1
        if right[node] >= 0:
            stack[depth] = i
            depth += 1
        if left[node] >= 0:
            node = left[node]
        elif depth > 0:
            depth -= 1
            new_right[stack[depth]] = i + 1
            node = right[order[stack[depth]]]
        else:
            return i + 1
    return n


@njit(cache=True)
def sizes_kernel(left, right, size):
    """Nodes of every subtree, itself included."""
    for v in range(len(left) - 1, -1, -1):
        size[v] = 1
        if left[v] >= 0:
            size[v] += size[left[v]]
        if right[v] >= 0:
            size[v] += size[right[v]]


@njit(cache=True)
def misnumbered_kernel(left, right, size):
    """The last node whose links break preorder numbering, -1 if none does; fills size."""
    n = len(left)
    for v in range(n - 1, -1, -1):
        after = v + 1
        if left[v] != -1:
            if left[v] != after or after == n:
                return v
            after += size[after]
        if right[v] != -1:
            if right[v] != after or after == n:
                return v
            after += size[after]
        size[v] = after - v
    return 0 if n > 0 and size[0] != n else -1


@njit(cache=True)
def parents_kernel(left, right, parent):
    if len(parent):
        parent[0] = -1
    for v in range(len(left)):
        if left[v] >= 0:
            parent[left[v]] = v
        if right[v] >= 0:
            parent[right[v]] = v


@njit(cache=True)
def depths_kernel(left, right, depth):
    if len(depth):
        depth[0] = 0
    for v in range(len(left)):
        if left[v] >= 0:
            depth[left[v]] = depth[v] + 1
        if right[v] >= 0:
            depth[right[v]] = depth[v] + 1


# ---------------------------------------------------------------------- walking
@njit(cache=True)
def inorder_kernel(left, right, order):
    """Preorder numbers go onto a stack; a node without a left child lets go all that is complete."""
    n, k, depth = len(left), 0, 0
    stack = np.empty(n, np.int32)
    for v in range(n):
        stack[depth] = v
        depth += 1
        if left[v] < 0:
            while depth > 0:
                depth -= 1
                u = stack[depth]
                order[k] = u
                k += 1
                if right[u] >= 0:  # the next number is there
                    break


@njit(cache=True)
def postorder_kernel(left, right, order):
    n, k, depth = len(left), 0, 0
    stack = np.empty(n, np.int32)
    for v in range(n):
        stack[depth] = v
        depth += 1
        if left[v] < 0 and right[v] < 0:
            last = -1
            while depth > 0:
                u = stack[depth - 1]
                if right[u] >= 0 and right[u] != last:
                    break  # back from the left, the right one comes next
                depth -= 1
                order[k] = last = u
                k += 1


@njit(cache=True)
def levelorder_kernel(left, right, order):
    """The order is its own queue."""
    if len(order) == 0:
        return
    order[0] = 0
    tail = 1
    for head in range(len(order)):
        u = order[head]
        if left[u] >= 0:
            order[tail] = left[u]
            tail += 1
        if right[u] >= 0:
            order[tail] = right[u]
            tail += 1


@njit(cache=True)
def turn_odd_levels_kernel(order, depth):
    """Reverse every second level of a level order in place."""
    n, begin = len(order), 0
    while begin < n:
        end = begin
        while end < n and depth[order[end]] == depth[order[begin]]:
            end += 1
        if depth[order[begin]] % 2:
            order[begin:end] = order[begin:end][::-1].copy()
        begin = end


@njit(cache=True)
def is_levelorder_kernel(left, right):
    """Are nodes numbered level by level? Read in order, children must be 1, 2, 3, ..."""
    following = 1
    for v in range(len(left)):
        for child in (left[v], right[v]):
            if child >= 0:
                if child != following:
                    return False
                following += 1
    return True


# ---------------------------------------------------------------------- places among null markers
@njit(cache=True)
def marked_places_kernel(left, right, size, root_first, place):
    """Where each node stands in a preorder (or postorder) with null markers.

    A subtree of s nodes takes 2 s + 1 entries, of which its root is the first (or the last).
    """
    begin = np.zeros(len(left), np.int64)
    for v in range(len(left)):
        after = begin[v] + (1 if root_first else 0)
        if left[v] >= 0:
            begin[left[v]] = after
            after += 2 * size[left[v]]
        after += 1
        if right[v] >= 0:
            begin[right[v]] = after
        place[v] = begin[v] if root_first else begin[v] + 2 * size[v]


@njit(cache=True)
def marked_level_places_kernel(left, right, order, place):
    """The children of the q-th node in level order stand at 2 q + 1 and 2 q + 2."""
    if len(order):
        place[0] = 0
    for q in range(len(order)):
        v = order[q]
        if left[v] >= 0:
            place[left[v]] = 2 * q + 1
        if right[v] >= 0:
            place[right[v]] = 2 * q + 2
