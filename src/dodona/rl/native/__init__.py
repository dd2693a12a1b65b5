"""The classic control tasks, compiled: environments without a call per row, and rollouts without one per step.

classic_kernels.py has the dynamics, native_env.py makes an Env of them, fused_rollout.py plays a network in
them. ``rl.make_env`` takes these tasks from here by itself.

Not here: Box2D, MuJoCo, Atari (gymnasium_env.py), finite models (rl.mdp_env).
"""
