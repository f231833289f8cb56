import toolz


def shout(value):
    return f"{toolz.identity(value)}!"
