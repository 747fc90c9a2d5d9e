"""Tasks whose right answers a program knows, to measure the quality of a model exactly."""

from labkit import lab

tasks = [task for family in lab.families() for task in lab.examples("test", family, 20, seed=1)]
print(len(tasks), "tasks of", len(lab.families()), "families;", tasks[0].id)
print("right answers:", sum(lab.grade(task, task.answer) for task in tasks))
print("thought about first:", sum(lab.grade(task, f"<think>hm</think> {task.answer}") for task in tasks))
print("no answers:", sum(lab.grade(task, "I do not know.") for task in tasks))
