/* train: learning models on the user's own machine, from text to a model file. */
#ifndef PHAROS_TRAIN_TRAIN_H
#define PHAROS_TRAIN_TRAIN_H

#include "train/corpus.h"
#include "train/lab.h"
#include "train/layers.h"
#include "train/ngram.h"
#include "train/prune.h"
#include "train/ranks.h"
#include "train/trainer.h"

#endif
