"""Five classic control tasks as pure functions of numbers, compiled by Numba, and the loops over rows of them.

A task is a number, a state four (the last ones 0 where a task has fewer): (state, action) -> (state, reward,
terminated). Constants, order of the integration and what is rounded are Gymnasium's, so that one step of
its environment and one of these agree to rounding.

Row n draws from a word of its own (_td_updates.py), one number per random coordinate of a first state, so
that a row does not depend on how many others there are.

Not here: tensors, checks, time limits by default (native_env.py), networks (fused_kernels.py).

Source: Gymnasium 1.x, envs/classic_control (Farama Foundation); Barto, Sutton & Anderson 1983 (CartPole);
Moore 1990 (MountainCar); Sutton 1996 (Acrobot).
"""

import math

import numpy as np
from numba import njit

from dodona.rl._td_updates import INLINE, uniform

CART_POLE, MOUNTAIN_CAR, MOUNTAIN_CAR_CONTINUOUS, PENDULUM, ACROBOT = range(5)

# CartPole: SI units; half_length is half the pole's
GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, PUSH = 9.8, 1.0, 0.1, 0.5, 10.0
TOTAL_MASS, POLE_MOMENT = CART_MASS + POLE_MASS, POLE_MASS * HALF_LENGTH
CART_STEP, TRACK, TILT = 0.02, 2.4, 12 * 2 * math.pi / 360
# both MountainCars
LEFT_WALL, RIGHT_WALL, TOP_SPEED, SLOPE = -1.2, 0.6, 0.07, 0.0025
ENGINE, GOAL = 0.001, 0.5
ENGINE_CONTINUOUS, GOAL_CONTINUOUS, PRIZE, FUEL = 0.0015, 0.45, 100.0, 0.1
# Pendulum: mass and length 1
PENDULUM_GRAVITY, PENDULUM_STEP, TORQUE, SPIN = 10.0, 0.05, 2.0, 8.0
# Acrobot: links of mass, length and moment 1, their centres half way
ACROBOT_STEP, CENTRE, SPIN_1, SPIN_2 = 0.2, 0.5, 4 * math.pi, 9 * math.pi


@njit(**INLINE)
def cart_pole(x, v, theta, omega, push):
    """Explicit Euler: positions move by the old velocities. The step that fails is rewarded too."""
    force = PUSH if push == 1.0 else -PUSH
    cosine, sine = math.cos(theta), math.sin(theta)
    pull = (force + POLE_MOMENT * omega * omega * sine) / TOTAL_MASS
    alpha = (GRAVITY * sine - cosine * pull) / (
        HALF_LENGTH * (4.0 / 3.0 - POLE_MASS * cosine * cosine / TOTAL_MASS)
    )
    a = pull - POLE_MOMENT * alpha * cosine / TOTAL_MASS
    x, v = x + CART_STEP * v, v + CART_STEP * a
    theta, omega = theta + CART_STEP * omega, omega + CART_STEP * alpha
    failed = x < -TRACK or x > TRACK or theta < -TILT or theta > TILT
    return x, v, theta, omega, 1.0, failed


@njit(**INLINE)
def roll(position, velocity, push):
    """The car on the hill, both versions; it stops dead at the left wall."""
    velocity = velocity + (push - SLOPE * math.cos(3 * position))
    velocity = min(max(velocity, -TOP_SPEED), TOP_SPEED)
    position = min(max(position + velocity, LEFT_WALL), RIGHT_WALL)
    if position == LEFT_WALL and velocity < 0.0:
        velocity = 0.0
    return position, velocity


@njit(**INLINE)
def mountain_car(position, velocity, gear):
    position, velocity = roll(position, velocity, (gear - 1.0) * ENGINE)
    return position, velocity, -1.0, position >= GOAL and velocity >= 0.0


@njit(**INLINE)
def mountain_car_continuous(position, velocity, action):
    """The state is kept in single precision, and fuel is paid for the action before clipping."""
    force = min(max(action, -1.0), 1.0)
    position, velocity = roll(position, velocity, force * ENGINE_CONTINUOUS)
    arrived = position >= GOAL_CONTINUOUS and velocity >= 0.0
    reward = (PRIZE if arrived else 0.0) - FUEL * action * action
    return float(np.float32(position)), float(np.float32(velocity)), reward, arrived


@njit(**INLINE)
def pendulum(theta, omega, torque):
    """The cost is of the state that was left; the angle moves by the new velocity."""
    u = min(max(torque, -TORQUE), TORQUE)
    angle = (theta + math.pi) % (2 * math.pi) - math.pi
    cost = angle * angle + 0.1 * omega * omega + 0.001 * u * u
    omega = omega + (1.5 * PENDULUM_GRAVITY * math.sin(theta) + 3.0 * u) * PENDULUM_STEP
    omega = min(max(omega, -SPIN), SPIN)
    return theta + omega * PENDULUM_STEP, omega, -cost


@njit(**INLINE)
def accelerations(theta_1, theta_2, omega_1, omega_2, torque):
    """Of the two links, in the form of Sutton & Barto's book.

    Sines are written as shifted cosines, as in the source: fast links amplify the last bit of an angle.
    """
    cosine, sine = math.cos(theta_2), math.sin(theta_2)
    d1 = 2 * CENTRE * CENTRE + 1.0 + 2 * CENTRE * cosine + 2.0
    d2 = CENTRE * CENTRE + CENTRE * cosine + 1.0
    phi_2 = CENTRE * GRAVITY * math.cos(theta_1 + theta_2 - math.pi / 2)
    phi_1 = (
        -CENTRE * omega_2 * omega_2 * sine
        - 2 * CENTRE * omega_2 * omega_1 * sine
        + (CENTRE + 1.0) * GRAVITY * math.cos(theta_1 - math.pi / 2)
        + phi_2
    )
    alpha_2 = (torque + d2 / d1 * phi_1 - CENTRE * omega_1 * omega_1 * sine - phi_2) / (
        CENTRE * CENTRE + 1.0 - d2 * d2 / d1
    )
    return -(d2 * alpha_2 + phi_1) / d1, alpha_2


@njit(**INLINE)
def wrapped(angle):
    """Into [-pi, pi]; a step turns a link by less than two rounds."""
    while angle > math.pi:
        angle -= 2 * math.pi
    while angle < -math.pi:
        angle += 2 * math.pi
    return angle


@njit(**INLINE)
def acrobot(theta_1, theta_2, omega_1, omega_2, lever):
    """One step of the classic Runge-Kutta scheme. The step that arrives costs nothing."""
    torque, h = lever - 1.0, ACROBOT_STEP
    sums = (0.0, 0.0, 0.0, 0.0)
    k = (0.0, 0.0, 0.0, 0.0)
    for stage in range(4):
        ahead = 0.0 if stage == 0 else (h if stage == 3 else h / 2)
        v1, v2 = omega_1 + ahead * k[2], omega_2 + ahead * k[3]
        a1, a2 = accelerations(theta_1 + ahead * k[0], theta_2 + ahead * k[1], v1, v2, torque)
        k = (v1, v2, a1, a2)
        w = 2.0 if stage == 1 or stage == 2 else 1.0
        sums = (sums[0] + w * v1, sums[1] + w * v2, sums[2] + w * a1, sums[3] + w * a2)
    theta_1 = wrapped(theta_1 + h / 6 * sums[0])
    theta_2 = wrapped(theta_2 + h / 6 * sums[1])
    omega_1 = min(max(omega_1 + h / 6 * sums[2], -SPIN_1), SPIN_1)
    omega_2 = min(max(omega_2 + h / 6 * sums[3], -SPIN_2), SPIN_2)
    arrived = -math.cos(theta_1) - math.cos(theta_2 + theta_1) > 1.0
    return theta_1, theta_2, omega_1, omega_2, 0.0 if arrived else -1.0, arrived


@njit(**INLINE)
def transition(task, a, b, c, d, action):
    """(state, reward, terminated) after one step of a task."""
    if task == CART_POLE:
        return cart_pole(a, b, c, d, action)
    if task == MOUNTAIN_CAR:
        a, b, reward, over = mountain_car(a, b, action)
        return a, b, 0.0, 0.0, reward, over
    if task == MOUNTAIN_CAR_CONTINUOUS:
        a, b, reward, over = mountain_car_continuous(a, b, action)
        return a, b, 0.0, 0.0, reward, over
    if task == PENDULUM:
        a, b, reward = pendulum(a, b, action)
        return a, b, 0.0, 0.0, reward, False
    return acrobot(a, b, c, d, action)


@njit(**INLINE)
def between(low, high, words, n):
    return low + (high - low) * uniform(words, n)


@njit(**INLINE)
def first_state(task, words, n):
    """A first state, from as many numbers of row n as it has random coordinates."""
    if task == CART_POLE:
        a, b = between(-0.05, 0.05, words, n), between(-0.05, 0.05, words, n)
        return a, b, between(-0.05, 0.05, words, n), between(-0.05, 0.05, words, n)
    if task == PENDULUM:
        a = between(-math.pi, math.pi, words, n)
        return a, between(-1.0, 1.0, words, n), 0.0, 0.0
    if task == ACROBOT:  # which begins in single precision and goes on in double
        a = float(np.float32(between(-0.1, 0.1, words, n)))
        b = float(np.float32(between(-0.1, 0.1, words, n)))
        c = float(np.float32(between(-0.1, 0.1, words, n)))
        return a, b, c, float(np.float32(between(-0.1, 0.1, words, n)))
    return between(-0.6, -0.4, words, n), 0.0, 0.0, 0.0


@njit(**INLINE)
def observe(task, a, b, c, d, obs, row):
    """Write what is seen of a state into a row."""
    if task == PENDULUM:
        obs[row, 0], obs[row, 1], obs[row, 2] = math.cos(a), math.sin(a), b
    elif task == ACROBOT:
        obs[row, 0], obs[row, 1] = math.cos(a), math.sin(a)
        obs[row, 2], obs[row, 3] = math.cos(b), math.sin(b)
        obs[row, 4], obs[row, 5] = c, d
    else:
        obs[row, 0], obs[row, 1] = a, b
        if task == CART_POLE:
            obs[row, 2], obs[row, 3] = c, d


@njit(**INLINE)
def put(state, n, a, b, c, d):
    state[0, n], state[1, n], state[2, n], state[3, n] = a, b, c, d


@njit(cache=True, nogil=True)
def begin(task, words, state, steps, group_size, obs):
    """First states of all rows; a group has that of its first row, and every row spends its numbers."""
    for n in range(len(steps)):
        a, b, c, d = first_state(task, words, n)
        put(state, n, a, b, c, d)
        leader = n - n % group_size
        for i in range(4):
            state[i, n] = state[i, leader]
        steps[n] = 0
        observe(task, state[0, n], state[1, n], state[2, n], state[3, n], obs, n)


@njit(cache=True, nogil=True)
def advance(
    first, last, task, limit, words, state, steps, actions, obs, next_obs, rewards, flags
):  # fmt: skip
    """One step of rows first .. last - 1; flags [2, B] terminated, truncated. Who ends begins again at once."""
    for n in range(first, last):
        a, b, c, d, reward, over = transition(
            task, state[0, n], state[1, n], state[2, n], state[3, n], actions[n]
        )
        put(state, n, a, b, c, d)
        steps[n] += 1
        observe(task, a, b, c, d, next_obs, n)
        rewards[n] = reward
        flags[0, n], flags[1, n] = over, steps[n] >= limit
        if flags[0, n] or flags[1, n]:
            a, b, c, d = first_state(task, words, n)
            put(state, n, a, b, c, d)
            steps[n] = 0
        observe(task, state[0, n], state[1, n], state[2, n], state[3, n], obs, n)


@njit(cache=True, nogil=True)
def jump(task, state, actions, successors, rewards, terminated):
    """One step from any states [B, D]; nothing else changes."""
    D = state.shape[1]
    for n in range(len(state)):
        c, d = (state[n, 2], state[n, 3]) if D == 4 else (0.0, 0.0)
        a, b, c, d, rewards[n], terminated[n] = transition(
            task, state[n, 0], state[n, 1], c, d, actions[n]
        )
        successors[n, 0], successors[n, 1] = a, b
        if D == 4:
            successors[n, 2], successors[n, 3] = c, d


@njit(cache=True, nogil=True)
def observe_all(task, state, obs):
    """[B, D] states as they are seen."""
    D = state.shape[1]
    for n in range(len(state)):
        c, d = (state[n, 2], state[n, 3]) if D == 4 else (0.0, 0.0)
        observe(task, state[n, 0], state[n, 1], c, d, obs, n)
