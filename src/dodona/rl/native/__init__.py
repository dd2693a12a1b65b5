"""Tasks of the house, compiled: environments without a call per row, and rollouts without one per step.

classic_kernels.py has the dynamics of classic control, native_env.py makes an Env of them, fused_rollout.py plays a
network in them; finite_worlds.py has finite tasks by name, lqr_env.py the regulator. ``rl.make_env`` takes all of
them from here by itself; environments.NATIVE lists their ids.

Not here: Box2D, MuJoCo, Atari (gymnasium_env.py), other finite models (rl.mdp_env).
"""
