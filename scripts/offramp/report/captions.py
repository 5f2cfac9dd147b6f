"""What is seen in each figure, and what follows from it; for the summary and Snakemake's report."""

CAPTIONS = {
    "report_cutoff": "One cutoff at every side exit. Left: how accurate the test samples are that "
    "leave at each exit, with exact 95 % intervals and the share that leaves "
    "there. Right: how long each stage takes for all test batches, predicted from "
    "the tables. An exit pays if many leave there, and rightly.",
    "time_accuracy": "Total time against overall accuracy on test data, for every shared cutoff "
    "(line; its time predicted from the tables, its band the 95 % interval), and "
    "live runs of ten other cutoffs (circles, drawn at the time model's pace; "
    "bars: the run's two halves). Dotted: the same network without a decision, "
    "all samples answered at one exit. What the line lies above it is won by deciding sample "
    "by sample.",
    "time_cutoff": "Total time on test data against the shared cutoff: predicted from the "
    "tables, and measured live (drawn at the time model's pace; bars: the run's "
    "two halves). Above the dashed line the exits cost more than they save.",
    "accuracy_cutoff": "Overall accuracy against the shared cutoff, with 95 % intervals. The best "
    "cutoff was chosen on validation data; test data only says how it fared.",
    "exit_shares": "Which share of the test samples leaves at each exit, against the shared "
    "cutoff. The higher the cutoff, the earlier they leave.",
    "target": "Accuracy and time at each exit under thresholds calibrated on validation "
    "data for the wanted accuracy, with 95 % intervals. What lies below the line "
    "on test data was luck on validation data. An exit that nobody leaves at has "
    "no mark.",
    "targets": "Time against accuracy on test data over the wanted accuracies, with "
    "thresholds from training data and from validation data, beside one shared "
    "cutoff; bars are 95 % intervals. The curve that lies further up and to the "
    "left is the better way to choose thresholds.",
    "entropy": "The score by which samples leave (the entropy, unless the config says "
    "otherwise), of every test sample at each exit: quartiles and median, "
    "whiskers from the 5th to the 95th percentile. The further apart right and "
    "wrong answers lie, the better a cutoff tells them apart.",
    "prediction": "Total time and speed-up of every verified policy, predicted from the tables "
    "and measured live, every batch under all policies and through the full "
    "network in turn. Bars: the run's even and odd batches. On the line the "
    "prediction was true.",
    "reliability": "How often each exit is right on test data when it gives its answer so and so "
    "much probability (its confidence): 15 bins of equally many samples, of raw logits and of "
    "logits divided by the exit's temperature T, which half of the validation data "
    "fitted. On the dotted line the probabilities are true, below it the exit is "
    "too sure of itself. ECE: expected calibration error in points, with its 95 % interval. Below "
    "each exit: how many samples are so sure, raw. Where the dashed line is right of the solid "
    "one, the exit states more than is true.",
    "leaving": "How many test samples of each class leave at each exit under the best "
    "policy; shades are shares of the class. Classes that leave early on average "
    "stand on top: they are the easy ones.",
    "confusion": "What the test samples that leave at each exit under the best policy are "
    "called: a row is a class, a column an answer, shades are shares of the row. "
    "Off the diagonal stand the mistakes; a number tells how many samples.",
    "agreement": "All test samples at every exit. Left: how many two exits label differently. "
    "Right: how many the exit of the row gets right and that of the column wrong; above "
    "the diagonal, where the column is the later exit, that is overthinking. An "
    "oracle would stop each sample at its first right exit.",
    "training": "Training, epoch by epoch: mean cross-entropy on augmented training images, "
    "and accuracy of every exit on validation images, which change no weight. The "
    "last epoch is taken.",
    "baseline": "Is the cascade worth its trouble? Measured in turn on the test images: the "
    "cascade at its best policy, and a plain network without side exits, of the "
    "same family and trained by the same recipe; before them once the full "
    "network. The grey line is every shared cutoff, its time predicted. Above and "
    "to the left is better.",
    "coverage": "Are the promises kept? How often each was broken on new draws, where the "
    "truth is known: a line per population. A promise is kept while its lines "
    "stay below the dotted one.",
}

# In place of those above where nothing ran live, and where there is no training split.
NOT_LIVE = {
    "time_accuracy": "Total time against overall accuracy on test data, for every shared cutoff; "
    "time is predicted from the tables, the band is the 95 % interval. Dotted: all samples "
    "answered at one exit. What the line lies above it is won by deciding sample by sample.",
    "time_cutoff": "Total time on test data against the shared cutoff, predicted from the tables. "
    "Above the dashed line the exits cost more than they save.",
}
NO_TRAIN = {
    "targets": "Time against accuracy on test data over the wanted accuracies, with thresholds "
    "from validation data, beside one shared cutoff; bars are 95 % intervals. The curve that lies "
    "further up and to the left is the better way to choose thresholds.",
}


def caption(figure: str, live: bool, trained: bool) -> str:
    """A figure's caption, of a run with live cascades (``live``) and a train split or without."""
    others = ({} if live else NOT_LIVE) | ({} if trained else NO_TRAIN)
    return others.get(figure, CAPTIONS[figure])
