def plot():
    import seaborn
