"""Labels, splits, scaling, batches, and the sets that come along, are downloaded or read from a table."""
from .augmentation import flip, shift
from .batches import Data, check_drop_last, check_function, check_targets, check_weights
from .downloads import IDX_SETS, data_folders, fashion_mnist, fetch, idx_array, idx_dataset, idx_file, mnist
from .folders import SUFFIXES, image_files, read_image
from .included import DATASETS, digits, initialize_dataset, iris, make_dataset, read_table, three_parts
from .labels import class_numbers, one_hot, stratified_split
from .own import parts_by_shares, write_predictions
from .parts import Dataset, k_folds
from .scaling import Scaling, check_examples, check_finite_rows, min_max, preparation, standardization
from .tables import DELIMITERS, class_order, csv_examples, csv_numbers, csv_rows, is_number

__all__ = ['DATASETS', 'DELIMITERS', 'IDX_SETS', 'SUFFIXES', 'Data', 'Dataset', 'Scaling', 'check_drop_last', 'check_examples', 'check_finite_rows',
           'check_function', 'check_targets', 'check_weights', 'class_numbers', 'class_order', 'csv_examples', 'csv_numbers', 'csv_rows',
           'data_folders', 'digits', 'fashion_mnist', 'fetch', 'flip', 'idx_array', 'idx_dataset', 'idx_file', 'image_files', 'initialize_dataset',
           'iris', 'is_number', 'k_folds', 'make_dataset', 'min_max', 'mnist', 'one_hot', 'parts_by_shares', 'preparation', 'read_image', 'read_table',
           'shift', 'standardization', 'stratified_split', 'three_parts', 'write_predictions']
