"""Labels, splits, scaling, batches, and the sets that come along, are downloaded or read from a table."""
from .augmentation import flip, shift
from .batches import Data, Dataset, check_function, check_targets
from .downloads import IDX_SETS, data_folders, fashion_mnist, fetch, idx_array, idx_dataset, idx_file, mnist
from .included import DATASETS, digits, initialize_dataset, iris, make_dataset, read_table, three_parts
from .labels import class_numbers, one_hot, stratified_split
from .scaling import Scaling, check_examples, check_finite_rows, min_max, preparation, standardization
from .tables import class_order, csv_examples, csv_numbers, csv_rows, write_predictions

__all__ = ['DATASETS', 'IDX_SETS', 'Data', 'Dataset', 'Scaling', 'check_examples', 'check_finite_rows', 'check_function',
           'check_targets', 'class_numbers', 'class_order', 'csv_examples', 'csv_numbers', 'csv_rows', 'data_folders',
           'digits', 'fashion_mnist', 'fetch', 'flip', 'idx_array', 'idx_dataset', 'idx_file', 'initialize_dataset', 'iris',
           'make_dataset', 'min_max', 'mnist', 'one_hot', 'preparation', 'read_table', 'shift', 'standardization',
           'stratified_split', 'three_parts', 'write_predictions']
